//! Which cores a rank may use, and who else uses them.

use serde::{Deserialize, Serialize};

/// The cores of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cores {
    /// The machine, by the kernel's boot id.
    machine: String,
    /// The numbers of the cores that the process may run on.
    allowed: Vec<usize>,
}

impl Cores {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // SAFETY: sched_getaffinity fills a set of ours, which is plain data.
        let allowed = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
            (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
        };
        Self { machine: machine.trim().to_owned(), allowed }
    }

    /// The number of `ranks` that run on the same cores. Launchers such as srun may give each rank
    /// cores of its own; most let all ranks of a machine run on all of its cores.
    pub fn shared_by(&self, ranks: &[Self]) -> usize {
        let shares = |other: &&Self| {
            other.machine == self.machine && other.allowed.iter().any(|core| self.allowed.contains(core))
        };
        ranks.iter().filter(shares).count().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_divided_among_the_ranks_that_have_them() {
        let cores = |machine: &str, allowed: &[usize]| Cores { machine: machine.into(), allowed: allowed.into() };
        let all = [cores("a", &[0, 1, 2, 3]), cores("a", &[0, 1, 2, 3]), cores("b", &[0, 1]), cores("b", &[2, 3])];
        assert_eq!(all.iter().map(|own| own.shared_by(&all)).collect::<Vec<_>>(), [2, 2, 1, 1]);
    }

    #[test]
    fn this_process_has_cores() {
        let own = Cores::of_this_process();
        assert!(!own.allowed.is_empty());
        assert_eq!(own.shared_by(std::slice::from_ref(&own)), 1);
    }
}
