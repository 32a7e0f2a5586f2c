//! The system calls that a program's process may make.
//!
//! A seccomp filter with a list of allowed calls; everything else, among it the numbers of the x32
//! interface, fails with `EPERM`. The worker installs it before a program's first instruction
//! (`worker/sandbox.py`). What is missing on purpose: processes, other programs, sockets, signals to
//! others, other processes' memory, mounts, namespaces, keys, `bpf`, `io_uring`, devices. And what
//! Landlock does not look at: changing the mode, owner, times or attributes of a file, `truncate` by
//! path, memory that counts for no process (`memfd_create`), signals by way of `fcntl`.

use std::collections::BTreeMap;
use std::path::Path;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::{Error, Result};

type Built<T> = std::result::Result<T, BackendError>;

/// The number that stands for the process itself. The worker replaces it, since a filter is made
/// before there is a process.
const OWN_PID: u64 = 0x7fed_cba9;

/// Calls that are allowed with any arguments.
const ALLOWED: &[i64] = &[
    // Files: Landlock says which.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Its own signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    // What it and the machine are.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_getcpu,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The older forms of some of them.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_time,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
];

/// aarch64 has only the newer forms.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

/// Duplicates, flags and locks of descriptors.
const FCNTL: [i32; 9] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
];

/// Is it a terminal, how much can be read, close on exec.
const IOCTL: [libc::Ioctl; 4] = [libc::TCGETS, libc::FIONREAD, libc::FIOCLEX, libc::FIONCLEX];

/// The name of a thread, and the filter that is installed after this one.
const PRCTL: [i32; 2] = [libc::PR_SET_NAME, libc::PR_SET_SECCOMP];

/// Writes the filters that the worker installs to `directory`, in the order of installation; none if
/// there is none for this architecture.
pub fn write_filters(directory: &Path) -> Result<()> {
    let Ok(target) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    for (name, filter) in [("calls.bpf", calls(target)), ("clone3.bpf", clone3(target))] {
        let code = filter.map_err(|error| Error::Filter(error.to_string()))?;
        let path = directory.join(name);
        std::fs::write(&path, bytes(&code)).map_err(|error| Error::file(&path, "write", &error))?;
    }
    Ok(())
}

fn calls(target: TargetArch) -> Built<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|&call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_openat, opens(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opens(1)?);
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![argument(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    // `abort` and `raise` signal the own process.
    rules.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, OWN_PID)?]);
    // Limits are read, not set.
    rules.insert(libc::SYS_prlimit64, vec![whole_argument(2, 0)?]);
    rules.insert(libc::SYS_fcntl, one_of(1, &FCNTL.map(|command| command as u64))?);
    rules.insert(libc::SYS_ioctl, one_of(1, &IOCTL)?);
    rules.insert(libc::SYS_prctl, one_of(0, &PRCTL.map(|option| option as u64))?);
    SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, target)?.try_into()
}

/// `clone3` does not exist: a filter cannot read its flags, and libc falls back to `clone`.
fn clone3(target: TargetArch) -> Built<BpfProgram> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), target)?.try_into()
}

/// Opens a file, but does not cut one that is only to be read: Landlock's first versions allow that.
fn opens(flags: u8) -> Built<Vec<SeccompRule>> {
    let (cut, mode) = (libc::O_TRUNC as u64, libc::O_ACCMODE as u64);
    let rule = |mask, value: u64| argument(flags, SeccompCmpOp::MaskedEq(mask), value);
    Ok(vec![
        rule(cut, 0)?,
        rule(cut | mode, cut | libc::O_WRONLY as u64)?,
        rule(cut | mode, cut | libc::O_RDWR as u64)?,
    ])
}

/// A rule about the low half of an argument.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Built<SeccompRule> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}

fn whole_argument(index: u8, value: u64) -> Built<SeccompRule> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)?])
}

fn one_of(index: u8, values: &[u64]) -> Built<Vec<SeccompRule>> {
    values.iter().map(|&value| argument(index, SeccompCmpOp::Eq, value)).collect()
}

/// The instructions as the kernel takes them.
fn bytes(code: &BpfProgram) -> Vec<u8> {
    code.iter()
        .flat_map(|i| {
            let [a, b] = i.code.to_ne_bytes();
            let [c, d, e, f] = i.k.to_ne_bytes();
            [a, b, i.jt, i.jf, c, d, e, f]
        })
        .collect()
}
