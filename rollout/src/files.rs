//! Files that are complete or absent: each is written under another name beside its own and
//! renamed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that appears under its name when it is complete; dropped before, it leaves nothing. A
/// device or a pipe is written as it is: to rename over `/dev/null` would replace it for the whole
/// machine.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Aside(NamedTempFile),
    Special(File),
}

impl WholeFile {
    /// Begins the file `path`, whose directory must exist.
    ///
    /// # Errors
    /// A directory that cannot be written, or one of this name.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let target = match is_special {
            true => Target::Special(OpenOptions::new().write(true).open(path)?),
            false => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                // Temporary files are private by default; this one is for everyone whom the umask
                // allows.
                let file = tempfile::Builder::new()
                    .prefix(&format!(".{name}."))
                    .suffix(".partial")
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(directory.unwrap_or(Path::new(".")))?;
                Target::Aside(file)
            }
        };
        Ok(Self { path: path.to_owned(), target })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the system write to the disk what was written to the file.
    ///
    /// # Errors
    /// A full or faulty disk.
    pub fn sync(&self) -> io::Result<()> {
        match &self.target {
            Target::Aside(file) => file.as_file().sync_all(),
            Target::Special(_) => Ok(()),
        }
    }

    /// Gives the file its name, in place of a file that has it.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn finish(self) -> io::Result<()> {
        match self.target {
            Target::Aside(file) => file.persist(&self.path).map(drop).map_err(|error| error.error),
            Target::Special(mut file) => file.flush(),
        }
    }

    /// Gives the file its name, unless a file has it.
    ///
    /// # Errors
    /// A directory that cannot be written, or a file of this name.
    pub fn finish_new(self) -> io::Result<()> {
        match self.target {
            Target::Aside(file) => file.persist_noclobber(&self.path).map(drop).map_err(|error| error.error),
            Target::Special(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Aside(file) => file.write(bytes),
            Target::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Aside(file) => file.flush(),
            Target::Special(file) => file.flush(),
        }
    }
}

/// Writes `bytes` to `path` so that the file is complete or as it was. Its directory must exist.
///
/// # Errors
/// A directory that cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = WholeFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        write_whole(&path, b"old").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"old"[..], 2));
        drop(file);
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"old"[..], 1));
        write_whole(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"new"[..], 1));
        assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o066, 0o066, "the umask is ignored");
    }

    #[test]
    fn a_new_file_replaces_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        write_whole(&path, b"old").unwrap();
        let file = WholeFile::create(&path).unwrap();
        assert_eq!(file.finish_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_device_stays_a_device() {
        write_whole(Path::new("/dev/null"), b"text").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(write_whole(Path::new("/dev"), b"").unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
