//! Files and directories that are complete or absent: each is written aside and then renamed.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A file that appears under its name only when [`WholeFile::finish`] has written all of it. Until
/// then, and if it is dropped unfinished, whatever was there before stays.
///
/// A device or a pipe is written directly: to rename a file over `/dev/null` would replace it for
/// the whole machine.
pub struct WholeFile {
    path: PathBuf,
    /// Where a regular file is written until it is complete.
    aside: Option<PathBuf>,
    writer: BufWriter<File>,
}

impl WholeFile {
    /// Starts to write `path`, whose directory must exist.
    ///
    /// # Errors
    /// `path` is a directory, or its directory cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let error = |error: &io::Error| Error::file(path, "write", error);
        if path.is_dir() {
            return Err(error(&io::ErrorKind::IsADirectory.into()));
        }
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let aside = (!is_special).then(|| aside_of(path));
        let file = File::create(aside.as_deref().unwrap_or(path)).map_err(|e| error(&e))?;
        Ok(Self { path: path.to_owned(), aside, writer: BufWriter::new(file) })
    }

    /// Writes what is still buffered and gives the file its name.
    ///
    /// # Errors
    /// The file cannot be written; then it is as it was.
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.writer.flush();
        let renamed = flushed.and_then(|()| self.aside.as_ref().map_or(Ok(()), |aside| fs::rename(aside, &self.path)));
        renamed.map_err(|e| Error::file(&self.path, "write", &e))?;
        self.aside = None;
        Ok(())
    }

    /// The error of a write to this file.
    pub(crate) fn error(&self, error: &io::Error) -> Error {
        Error::file(&self.path, "write", error)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(aside) = &self.aside {
            // Nothing depends on this file.
            let _ = fs::remove_file(aside);
        }
    }
}

/// A name beside `path` that no other writer uses.
fn aside_of(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{name}.{process}-{count}.partial"))
}

/// Writes `bytes` to `path`, so that the file is complete or as it was.
///
/// # Errors
/// See [`WholeFile`].
pub fn write_whole(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut file = WholeFile::create(path)?;
    file.write_all(bytes.as_ref()).map_err(|e| file.error(&e))?;
    file.finish()
}

/// Has `fill` write a new directory aside, and then puts it in the place of `directory`.
///
/// The two directories exchange their names in one step, so that there is always a complete one. A
/// file system that cannot do that has none for an instant.
///
/// # Errors
/// What `fill` returns, or a directory that cannot be written. The old directory stays as it was.
pub fn replace_directory<E: From<Error>>(directory: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let beside = |mark: &str| {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        directory.with_file_name(format!(".{name}.{mark}"))
    };
    let (aside, old) = (beside("new"), beside("old"));
    let error = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Error::file(&path, "write", &error)
    };
    let clear = || {
        let leftovers = [&aside, &old].into_iter().filter(|path| path.exists());
        leftovers.map(|path| fs::remove_dir_all(path).map_err(error(path))).collect::<Result<()>>()
    };
    clear()?;
    fs::create_dir_all(&aside).map_err(error(&aside))?;
    fill(&aside)?;
    if !directory.exists() {
        return Ok(fs::rename(&aside, directory).map_err(error(directory))?);
    }
    if exchange(&aside, directory).is_err() {
        fs::rename(directory, &old).map_err(error(directory))?;
        fs::rename(&aside, directory).map_err(error(directory))?;
    }
    Ok(clear()?)
}

/// Exchanges the names of two directories in one step.
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let [a, b] = [a, b].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (a, b) = (a?, b?);
    // SAFETY: both are NUL-terminated strings that outlive the call.
    let status =
        unsafe { libc::renameat2(libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mut other = WholeFile::create(&path).unwrap();
        other.write_all(b"other").unwrap();
        drop(other);
        assert_eq!((fs::read(&path).unwrap(), names(root.path())), (b"new".to_vec(), vec!["file".to_owned()]));
    }

    #[test]
    fn two_writers_of_one_file_do_not_mix() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let mut first = WholeFile::create(&path).unwrap();
        first.write_all(b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        first.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn a_failed_write_leaves_the_old_directory() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("best");
        let write = |text: &'static str| {
            move |directory: &Path| {
                fs::write(directory.join("file"), text).map_err(|e| Error::file(directory, "write", &e))
            }
        };
        replace_directory(&target, write("one")).unwrap();
        replace_directory(&target, |_| Err(Error::Closed)).unwrap_err();
        assert_eq!(fs::read(target.join("file")).unwrap(), b"one");
        replace_directory(&target, write("two")).unwrap();
        assert_eq!(fs::read(target.join("file")).unwrap(), b"two");
        assert_eq!(names(root.path()), ["best"]);
    }
}
