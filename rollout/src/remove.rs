//! Removes directories that programs have filled.

use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Removes a directory and all that it holds, whatever its depth, and follows no link.
///
/// std's function takes some stack and a descriptor for each level, and a program can make a level
/// with each of its lines. Here what is in a directory is moved up before the directory is removed.
///
/// # Errors
/// What cannot be removed, for example because a program still writes there.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let top = open(CWD, path)?;
    let mut moved = 0_u64;
    loop {
        let names = names_in(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if unlinkat(&top, &*name, AtFlags::empty()).is_ok() {
                continue;
            }
            let directory = open(top.as_fd(), &*name)?;
            for inner in names_in(&directory)? {
                if unlinkat(&directory, &*inner, AtFlags::empty()).is_err() {
                    move_up(&directory, &inner, &top, &mut moved)?;
                }
            }
            unlinkat(&top, &*name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

/// Opens a directory and makes it one that may be read and changed.
fn open(parent: BorrowedFd<'_>, name: impl Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    // By its descriptor, since something else may have the name by now.
    let _ = fs::set_permissions(format!("/proc/self/fd/{}", found.as_raw_fd()), Permissions::from_mode(0o700));
    Ok(openat(&found, c".", flags, Mode::empty())?)
}

fn names_in(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if ![c".", c".."].contains(&name.as_c_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Moves a directory to `top`, under a number that is free.
fn move_up(parent: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    drop(open(parent.as_fd(), name)?);
    loop {
        *moved += 1;
        match renameat(parent, name, top, moved.to_string()) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, symlink};
    use std::process::Command;

    use super::*;

    #[test]
    fn what_links_lead_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "precious").unwrap();
        let root = tempfile::tempdir().unwrap();
        let filled = root.path().join("filled");
        fs::create_dir_all(filled.join("a/b/c")).unwrap();
        for inside in ["", "a", "a/b/c"] {
            symlink(outside.path(), filled.join(inside).join("link")).unwrap();
            fs::write(filled.join(inside).join("file"), "").unwrap();
        }
        // Names that the function would choose itself.
        fs::create_dir_all(filled.join("1/x")).unwrap();
        fs::write(filled.join("2"), "").unwrap();
        symlink(&filled, root.path().join("link")).unwrap();
        assert!(remove_directory(&root.path().join("link")).is_err());
        assert!(remove_directory(&root.path().join("absent")).is_err());
        assert!(filled.join("a").exists());
        remove_directory(&filled).unwrap();
        assert!(!filled.exists() && outside.path().join("precious").exists());
    }

    #[test]
    fn directories_that_may_not_be_read_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("filled/closed/within");
        fs::create_dir_all(closed.parent().unwrap()).unwrap();
        fs::DirBuilder::new().mode(0o500).create(&closed).unwrap();
        fs::set_permissions(closed.parent().unwrap(), Permissions::from_mode(0o300)).unwrap();
        remove_directory(&root.path().join("filled")).unwrap();
    }

    #[test]
    fn a_deep_directory_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let dig = "import os\nfor _ in range(30000):\n    os.mkdir('d')\n    os.chdir('d')\n";
        let mut python = Command::new(crate::python::find(None).unwrap());
        assert!(python.args(["-c", dig]).current_dir(root.path()).status().unwrap().success());
        remove_directory(&root.path().join("d")).unwrap();
    }
}
