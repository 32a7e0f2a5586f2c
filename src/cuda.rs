//! CUDA: loads libtorch's CUDA half, and says why it cannot be used on a machine that has an NVIDIA
//! device.
//!
//! The linker drops `libtorch_cuda.so`, because the binary refers to none of its symbols. So the
//! binary starts on a machine without CUDA, and this module loads the library if the machine has a
//! device.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, bail};
use tch::Device;

const LIBRARY: &str = "libtorch_cuda.so";

/// Whether libtorch can compute on an NVIDIA device of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cuda {
    /// libtorch counts this many devices, at least one.
    Usable(usize),
    /// The machine shows no NVIDIA device.
    Absent,
    /// `device` shows that the machine has an NVIDIA device, but libtorch cannot use it. `reason`
    /// is one line.
    Unusable {
        /// The file that shows the device.
        device: &'static str,
        /// Why libtorch cannot use it.
        reason: String,
    },
}

/// The state of CUDA in this process. The first call loads the library. It must come before any
/// other question to libtorch about CUDA devices, because libtorch remembers that there were none.
pub fn cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| {
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let count = || usize::try_from(tch::Cuda::device_count()).unwrap_or_default();
        Cuda::probe(&|path| path.exists(), libtorch().as_deref(), &open, &count, visible.as_deref())
    })
}

/// The directory of the libtorch that this process has loaded.
pub fn libtorch() -> Option<PathBuf> {
    loaded_from(&std::fs::read_to_string("/proc/self/maps").ok()?, "libtorch_cpu.so")
}

impl Cuda {
    /// Looks for a device among the paths that `exist`, loads the library from the directory
    /// `libtorch` or else by its name, and counts devices. `visible` is the value of
    /// `CUDA_VISIBLE_DEVICES`.
    fn probe(
        exists: &dyn Fn(&Path) -> bool,
        libtorch: Option<&Path>,
        open: &dyn Fn(&Path) -> Result<(), String>,
        count: &dyn Fn() -> usize,
        visible: Option<&str>,
    ) -> Self {
        let Some(device) = nvidia_device(exists) else { return Self::Absent };
        if let Err(reason) = load(libtorch, exists, open) {
            return Self::Unusable { device, reason };
        }
        match count() {
            0 => {
                let hidden = visible.map(|value| format!(" (CUDA_VISIBLE_DEVICES is {value:?})")).unwrap_or_default();
                let reason = format!(
                    "{LIBRARY} is loaded, but the driver gives it no device{hidden}; does `nvidia-smi` list one?"
                );
                Self::Unusable { device, reason }
            }
            count => Self::Usable(count),
        }
    }

    /// The first CUDA device, or the CPU if there is none.
    pub fn first_or_cpu(&self) -> Device {
        if matches!(self, Self::Usable(_)) { Device::Cuda(0) } else { Device::Cpu }
    }

    /// The CUDA device with this index.
    ///
    /// # Errors
    /// There is no such device, or it cannot be used; the message says why.
    pub fn device(&self, index: usize) -> Result<Device> {
        match self {
            Self::Usable(count) if index < *count => Ok(Device::Cuda(index)),
            Self::Usable(count) => bail!("run.device = \"cuda:{index}\": there are {count} CUDA devices, from cuda:0"),
            Self::Absent => bail!("run.device = \"cuda:{index}\": this machine has no NVIDIA device; use auto or cpu"),
            Self::Unusable { .. } => bail!("run.device = \"cuda:{index}\": {}", self.warning().unwrap_or_default()),
        }
    }

    /// If there is a device that cannot be used, one line that names it and says why.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Unusable { device, reason } => {
                Some(format!("CUDA cannot be used although {device} shows an NVIDIA device: {reason}"))
            }
            Self::Usable(_) | Self::Absent => None,
        }
    }
}

/// The file that shows an NVIDIA device, if one of them `exists`. Under WSL, `/dev/dxg` may be
/// another vendor's GPU. It is NVIDIA's if the NVIDIA driver has installed its library.
fn nvidia_device(exists: &dyn Fn(&Path) -> bool) -> Option<&'static str> {
    const SIGNS: [&[&str]; 3] =
        [&["/dev/nvidiactl"], &["/proc/driver/nvidia"], &["/dev/dxg", "/usr/lib/wsl/lib/libcuda.so.1"]];
    let sign = SIGNS.into_iter().find(|sign| sign.iter().all(|path| exists(Path::new(path))))?;
    Some(sign[0])
}

/// The directory of the file called `name` in the text of `/proc/<pid>/maps`.
fn loaded_from(maps: &str, name: &str) -> Option<PathBuf> {
    // A path is the last column and may contain spaces; no column before it has a slash.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let path = paths.into_iter().find(|path| path.file_name().is_some_and(|found| found == name))?;
    path.parent().map(Path::to_path_buf)
}

/// Opens the library in the directory `libtorch` if it is there, and else by its name, as the
/// dynamic linker finds it.
fn load(
    libtorch: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
    open: &dyn Fn(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let beside = libtorch.map(|directory| directory.join(LIBRARY));
    if let Some(path) = beside.filter(|path| exists(path)) {
        return open(&path);
    }
    open(Path::new(LIBRARY)).map_err(|error| {
        let place = libtorch.map(|directory| format!(" in {}", directory.display())).unwrap_or_default();
        format!("{error}; there is no {LIBRARY}{place}: `scripts/setup --full` installs it")
    })
}

/// Loads libtorch's CUDA half, even on a machine without a device.
#[cfg(test)]
pub(crate) fn load_anyway() -> Result<(), String> {
    load(libtorch().as_deref(), &|path| path.exists(), &open)
}

/// Loads a library for the whole process. The error is the dynamic linker's message, in one line.
fn open(path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
    // SAFETY: a NUL-terminated path. The library is libtorch's own, and its initialisers expect to
    // be loaded this way.
    if unsafe { !libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() } {
        return Ok(());
    }
    Err(linker_message())
}

/// The dynamic linker's last message on this thread, in one line.
pub(crate) fn linker_message() -> String {
    // SAFETY: dlerror returns null or a string that is valid until this thread calls the linker
    // again.
    let message = unsafe {
        let message = libc::dlerror();
        if message.is_null() { String::new() } else { CStr::from_ptr(message).to_string_lossy().into_owned() }
    };
    message.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const MAPS: &str = "\
55d0c0a00000-55d0c0b00000 r--p 00000000 fe:00 1312                       /usr/bin/cadwright
7f2a10000000-7f2a10021000 rw-p 00000000 00:00 0
7f2a20000000-7f2a20010000 r-xp 00000000 fe:00 99                         /opt/my torch/lib/libtorch_cpu.so.bak
7f2a30000000-7f2a30010000 r-xp 00010000 fe:00 77                         /opt/my torch/lib/libtorch_cpu.so
7ffc8a000000-7ffc8a021000 rw-p 00000000 00:00 0                          [stack]
";

    fn only(paths: &'static [&'static str]) -> impl Fn(&Path) -> bool {
        move |path| paths.iter().any(|known| Path::new(known) == path)
    }

    /// Probes a machine with these paths, whose driver shows `count` devices.
    fn probe(paths: &'static [&'static str], error: Option<&str>, count: usize) -> (Cuda, Vec<PathBuf>) {
        let opened = RefCell::new(Vec::new());
        let open = |path: &Path| {
            opened.borrow_mut().push(path.to_path_buf());
            error.map_or(Ok(()), |error| Err(error.to_owned()))
        };
        let libtorch = loaded_from(MAPS, "libtorch_cpu.so");
        let cuda = Cuda::probe(&only(paths), libtorch.as_deref(), &open, &|| count, Some("7"));
        (cuda, opened.into_inner())
    }

    #[test]
    fn the_directory_of_the_loaded_libtorch_is_read_from_the_maps() {
        assert_eq!(loaded_from(MAPS, "libtorch_cpu.so"), Some("/opt/my torch/lib".into()));
        assert_eq!(loaded_from(MAPS, "libtorch_cuda.so"), None);
        let found = libtorch().expect("this process has loaded libtorch");
        assert!(found.join("libtorch_cpu.so").is_file(), "{}", found.display());
    }

    #[test]
    fn a_device_is_seen_with_and_without_device_files_and_under_wsl() {
        for (paths, device) in [
            (&["/dev/nvidiactl"] as &[_], Some("/dev/nvidiactl")),
            (&["/proc/driver/nvidia"], Some("/proc/driver/nvidia")),
            (&["/dev/dxg", "/usr/lib/wsl/lib/libcuda.so.1"], Some("/dev/dxg")),
            (&["/dev/dxg"], None),
            (&[], None),
        ] {
            assert_eq!(nvidia_device(&only(paths)), device, "{paths:?}");
        }
    }

    #[test]
    fn the_library_beside_the_loaded_libtorch_is_loaded_before_one_found_by_name() {
        let (cuda, opened) = probe(&["/dev/nvidiactl", "/opt/my torch/lib/libtorch_cuda.so"], None, 2);
        assert_eq!((cuda, opened), (Cuda::Usable(2), vec!["/opt/my torch/lib/libtorch_cuda.so".into()]));
        let (cuda, opened) = probe(&["/dev/nvidiactl"], None, 1);
        assert_eq!((cuda, opened), (Cuda::Usable(1), vec!["libtorch_cuda.so".into()]));
        let (cuda, opened) = probe(&[], None, 1);
        assert_eq!((cuda, opened), (Cuda::Absent, Vec::new()));
    }

    #[test]
    fn a_device_that_cannot_be_used_is_a_warning_and_an_error_if_it_was_asked_for() {
        let beside: &[_] = &["/dev/nvidiactl", "/opt/my torch/lib/libtorch_cuda.so"];
        let linker = "libcudnn.so.9: cannot open shared object file";
        for (paths, error, texts) in [
            (beside, Some(linker), &[linker] as &[_]),
            (&beside[..1], Some("libtorch_cuda.so: no such file"), &["no such file", "/opt/my torch/lib", "--full"]),
            (beside, None, &["no device", "CUDA_VISIBLE_DEVICES is \"7\"", "nvidia-smi"]),
        ] {
            let (cuda, _) = probe(paths, error, 0);
            let warning = cuda.warning().expect("a warning");
            let error = cuda.device(0).unwrap_err().to_string();
            assert_eq!((cuda.first_or_cpu(), warning.lines().count()), (Device::Cpu, 1));
            for text in texts.iter().chain(&["/dev/nvidiactl"]) {
                assert!(warning.contains(text) && error.contains(text), "expected {text:?}: {warning}\n{error}");
            }
        }
    }

    #[test]
    fn a_device_beyond_the_last_is_refused() {
        assert_eq!(Cuda::Usable(2).device(1).unwrap(), Device::Cuda(1));
        assert_eq!(Cuda::Usable(2).first_or_cpu(), Device::Cuda(0));
        for (cuda, text) in [(Cuda::Usable(2), "there are 2 CUDA devices"), (Cuda::Absent, "no NVIDIA device")] {
            let error = cuda.device(2).unwrap_err().to_string();
            assert!(error.contains("cuda:2") && error.contains(text), "{error}");
            assert_eq!(cuda.warning(), None);
        }
    }

    #[test]
    fn what_the_dynamic_linker_says_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LIBRARY);
        std::fs::write(&path, "text").unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("too short"), "{error}");
    }
}
