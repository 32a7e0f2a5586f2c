//! The variables by which a launcher tells a process its place among the ranks.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::c10d::StoreAddress;

/// The place of this process, as the launcher gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// This process among all, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// This process among those of its machine, from 0.
    pub local_rank: usize,
    /// Number of processes on this machine.
    pub local_size: usize,
    /// Host of the store.
    pub host: String,
    /// Port of the store.
    pub port: u16,
    /// Whether the launcher itself serves the store, as torchrun does.
    pub launcher_serves: bool,
}

impl Place {
    /// The place that the environment gives; `None` if there is no launcher, that is, if neither
    /// `RANK` nor `WORLD_SIZE` is set.
    ///
    /// # Errors
    /// Variables that are missing, are not numbers, or contradict each other.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::read(&|name| std::env::var(name).ok())
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        if variable("RANK").is_none() && variable("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            let number = text.trim().parse().ok();
            Ok(Some(number.with_context(|| format!("{name} = {text:?}: expected a number, as a launcher sets it"))?))
        };
        let required = |name: &str| -> Result<usize> {
            number(name)?.with_context(|| {
                format!("{name} is not set, but RANK or WORLD_SIZE is: unset those, or start with torchrun or `cadwright launch`")
            })
        };
        let (rank, size) = (required("RANK")?, required("WORLD_SIZE")?);
        ensure!(rank < size, "RANK = {rank}: must be below WORLD_SIZE = {size}");
        let local_size = number("LOCAL_WORLD_SIZE")?.unwrap_or(size);
        ensure!(
            (1..=size).contains(&local_size),
            "LOCAL_WORLD_SIZE = {local_size}: must be from 1 to WORLD_SIZE = {size}"
        );
        let local_rank = match number("LOCAL_RANK")? {
            Some(local_rank) => local_rank,
            None if local_size == size => rank,
            None => bail!("LOCAL_RANK is not set, but LOCAL_WORLD_SIZE = {local_size} is below WORLD_SIZE = {size}"),
        };
        ensure!(local_rank < local_size, "LOCAL_RANK = {local_rank}: must be below LOCAL_WORLD_SIZE = {local_size}");
        let (host, port) = if size == 1 {
            (String::new(), 0)
        } else {
            let host = variable("MASTER_ADDR").filter(|host| !host.is_empty());
            let host = host.context("MASTER_ADDR is not set: it is the host of rank 0")?;
            let port = required("MASTER_PORT")?;
            (host, u16::try_from(port).ok().with_context(|| format!("MASTER_PORT = {port}: expected a port"))?)
        };
        Ok(Some(Self {
            rank,
            size,
            local_rank,
            local_size,
            host,
            port,
            launcher_serves: variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"),
        }))
    }

    /// The address of the store, for keys that begin with `prefix`.
    pub(super) fn store(&self, prefix: &str) -> StoreAddress {
        StoreAddress { host: self.host.clone(), port: self.port, prefix: format!("cadwright/{prefix}") }
    }

    /// Whether all ranks are certainly on this machine, so that they can meet at its own address.
    pub(super) fn is_one_machine(&self) -> bool {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let is_here = ["localhost", "127.0.0.1", "::1", name.trim()].contains(&self.host.as_str());
        self.local_size == self.size && is_here
    }

    /// Whether this process serves the store.
    pub(super) fn serves_store(&self) -> bool {
        self.rank == 0 && !self.launcher_serves
    }
}

/// A time in words, for messages: `3.2 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Place::read(&|name| variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn without_a_launcher_there_is_no_place() {
        assert_eq!(read(&[("MASTER_ADDR", "host"), ("LOCAL_RANK", "0")]).unwrap(), None);
    }

    #[test]
    fn one_machine_is_the_default() {
        let variables = [("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];
        let place = read(&variables).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local_rank, place.local_size), (1, 4, 1, 4));
        assert_eq!((place.host.as_str(), place.port, place.launcher_serves), ("127.0.0.1", 29500, false));
        assert!(place.is_one_machine());
        assert!(!Place { host: "node0".into(), ..place }.is_one_machine(), "LOCAL_WORLD_SIZE may not have been set");
    }

    #[test]
    fn torchrun_serves_the_store() {
        let place = read(&[
            ("RANK", "9"),
            ("WORLD_SIZE", "16"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "8"),
            ("MASTER_ADDR", "node0"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ]);
        let place = place.unwrap().unwrap();
        assert_eq!((place.local_rank, place.local_size, place.serves_store()), (1, 8, false));
    }

    #[test]
    fn contradictions_are_named() {
        let address = [("MASTER_ADDR", "h"), ("MASTER_PORT", "1")];
        for (variables, text) in [
            (&[("RANK", "0")] as &[_], "WORLD_SIZE is not set"),
            (&[("WORLD_SIZE", "2")], "RANK is not set"),
            (&[("RANK", "2"), ("WORLD_SIZE", "2")], "RANK = 2: must be below WORLD_SIZE = 2"),
            (&[("RANK", "x"), ("WORLD_SIZE", "2")], "RANK = \"x\""),
            (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "1")], "LOCAL_RANK is not set"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "2")], "LOCAL_RANK = 2"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "3")], "LOCAL_WORLD_SIZE = 3"),
        ] {
            let error = read(&[variables, &address].concat()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let error = read(&[("RANK", "0"), ("WORLD_SIZE", "2")]).unwrap_err().to_string();
        assert!(error.contains("MASTER_ADDR"), "{error}");
    }

    #[test]
    fn one_rank_needs_no_address() {
        assert_eq!(read(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap().unwrap().size, 1);
    }
}
