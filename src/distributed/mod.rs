//! The ranks of a run: the processes that a launcher has started, and what they do together, by
//! PyTorch's c10d (NCCL between GPUs, Gloo between processes).
//!
//! Every rank runs the same program with the same configuration. Where ranks must act alike, they
//! decide from the same numbers: those of rank 0, or sums over all. Without a launcher the world
//! has one rank, and none of this does anything.

mod c10d;
mod cores;
mod environment;
mod measure;
mod meeting;
mod monitor;
pub mod nccl;

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cadwright_rollout::ScorerConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

use crate::config::{Config, Distributed};
use crate::device::set_threads;
use crate::terminal::{status, warn};
use c10d::{Group, Store};
use cores::Cores;
pub use environment::Place;
use environment::seconds;
pub use measure::AllReduces;
use monitor::Monitor;

/// An operation of all ranks that failed on this one.
#[derive(Debug, thiserror::Error)]
#[error("rank {rank} of {size}: {operation} failed after {waited}: {reason}")]
pub struct DistributedError {
    /// This rank.
    rank: usize,
    /// Number of ranks.
    size: usize,
    /// The operation, and what it was for.
    operation: String,
    /// How long this rank had waited.
    waited: String,
    /// c10d's message.
    reason: String,
}

/// All ranks, seen from one of them.
pub struct World {
    place: Place,
    /// `None` for one rank. Not dropped after a failure: closing a connection to a rank that is
    /// gone may take for ever.
    link: Option<ManuallyDrop<Link>>,
    has_failed: Cell<bool>,
    /// Number of ranks, this one included, that run on the cores of this one.
    core_sharers: usize,
    /// Barriers that this rank has passed. All ranks pass the same ones.
    barriers: Cell<u64>,
}

/// The connections to the other ranks.
struct Link {
    // Dropped in this order: groups and the thread use the store.
    /// Between processes: bytes, and tensors on the CPU.
    processes: Group,
    /// Between GPUs.
    devices: Option<Group>,
    monitor: Monitor,
    store: Arc<Store>,
}

impl World {
    /// The world of one rank.
    pub fn single() -> Self {
        let place = Place {
            rank: 0,
            size: 1,
            local_rank: 0,
            local_size: 1,
            host: String::new(),
            port: 0,
            launcher_serves: false,
        };
        Self { place, link: None, has_failed: Cell::new(false), core_sharers: 1, barriers: Cell::new(0) }
    }

    /// The world and the device of this process: connects to the other ranks, if a launcher has
    /// started them, and takes this rank's share of the machine's GPUs and cores.
    ///
    /// # Errors
    /// The launcher's variables contradict each other, the device cannot be used, or the others do
    /// not come.
    pub fn join(config: &Config) -> Result<(Self, Device)> {
        let place = Place::from_environment()?;
        let (local_rank, local_size) = place.as_ref().map_or((0, 1), |place| (place.local_rank, place.local_size));
        let device = config.run.device.open_for(local_rank, local_size)?;
        let world = Self::connect(place, device, &config.distributed)?;
        let threads = config.run.threads;
        set_threads(if threads == 0 && world.size() > 1 { world.cores() } else { threads });
        if world.size() > 1 {
            // Fails if the pool is there already, which then stays as it is.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(world.cores()).build_global();
        }
        Ok((world, device))
    }

    /// Connects to the other ranks of `place`. Tensors on `device` are exchanged by NCCL if it is a
    /// GPU. `None` is the world of one rank.
    ///
    /// # Errors
    /// The others do not come within `distributed.timeout_s`, or a backend cannot be loaded.
    pub fn connect(place: Option<Place>, device: Device, config: &Distributed) -> Result<Self> {
        let Some(place) = place.filter(|place| place.size > 1) else { return Ok(Self::single()) };
        let timeout = Duration::from_secs_f64(config.timeout_s);
        let (rank, size, started) = (place.rank, place.size, Instant::now());
        let failed = |what: &str| {
            let operation = format!("{what} (MASTER_ADDR {}, MASTER_PORT {})", place.host, place.port);
            move |reason| DistributedError { rank, size, operation, waited: seconds(started.elapsed()), reason }
        };
        c10d::be_quiet();
        let address = if place.launcher_serves {
            let shared = Store::open(&place.store("meeting"), false, 0, timeout).map_err(failed("meeting"))?;
            place.store(&meeting::agree(&shared, rank, size, timeout).map_err(failed("meeting"))?)
        } else {
            place.store("run")
        };
        let workers = if place.launcher_serves { 0 } else { size };
        let store = Store::open(&address, place.serves_store(), workers, timeout).map_err(failed("meeting"))?;
        let interface = std::env::var("GLOO_SOCKET_IFNAME").ok();
        let loopback = place.is_one_machine().then_some("127.0.0.1");
        let processes = Group::gloo(&store, rank, size, interface.as_deref(), loopback, timeout);
        let processes = processes.map_err(failed("connecting by Gloo"))?;
        let devices = match device {
            Device::Cuda(index) => {
                Some(Group::nccl(&store, rank, size, index, timeout).map_err(failed("connecting by NCCL"))?)
            }
            _ => None,
        };
        let monitor = Monitor::start(&address, rank, size, timeout).map_err(failed("watching the others"))?;
        let link = Link { processes, devices, monitor, store: Arc::new(store) };
        let link = Some(ManuallyDrop::new(link));
        let mut world = Self { place, link, has_failed: Cell::new(false), core_sharers: 1, barriers: Cell::new(0) };
        let cores = Cores::of_this_process();
        world.core_sharers = cores.shared_by(&world.gather("the ranks' cores", cores.clone())?);
        let backends = world.gather("the ranks' backends", world.backend().to_owned())?;
        if let Some(other) = backends.iter().position(|backend| *backend != backends[0]) {
            bail!(
                "rank {other} computes with {}, rank 0 with {}: all ranks must have a GPU, or set run.device = \"cpu\"",
                backends[other],
                backends[0]
            );
        }
        Ok(world)
    }

    /// Calls `work`, so that its failure on one rank ends all others with its message, and the
    /// ranks end together.
    ///
    /// # Errors
    /// Those of `work`.
    ///
    /// # Panics
    /// If `work` does.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(link) = &self.link else { return work() };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => {
                self.end_together(link).inspect_err(|_| self.has_failed.set(true))?;
                Ok(value)
            }
            Ok(Err(error)) => {
                self.fail(&format!("{error:#}"), true);
                Err(error)
            }
            Err(panic) => {
                let texts = [panic.downcast_ref::<String>().map(String::as_str), panic.downcast_ref::<&str>().copied()];
                // The panic has printed its message itself.
                self.fail(&format!("panicked: {}", texts.into_iter().flatten().next().unwrap_or_default()), false);
                resume_unwind(panic)
            }
        }
    }

    /// Waits for all ranks. The one that serves the store ends last.
    fn end_together(&self, link: &Link) -> Result<()> {
        self.barrier("the end of the run")?;
        // From here on another rank's end is no failure.
        link.monitor.stop_watching();
        if !self.is_main() {
            // The last use of the store, which may be gone before it answers.
            let _ = link.store.add("ended", 1);
            return Ok(());
        }
        let mut pause = Pause::default();
        while link.store.add("ended", 0).is_ok_and(|ended| ended + 1 < self.size() as i64) {
            pause.sleep();
        }
        Ok(())
    }

    /// Reports why this rank ends, on standard error if `is_reported` and no other rank has done
    /// so, and to the others.
    fn fail(&self, reason: &str, is_reported: bool) {
        self.has_failed.set(true);
        let Some(link) = &self.link else { return };
        link.monitor.stop_watching();
        let rank = self.rank();
        // The store may have gone down with another machine, and then never answers.
        let (sender, answer) = std::sync::mpsc::channel();
        let store = link.store.clone();
        let text = reason.to_owned();
        std::thread::spawn(move || sender.send(monitor::announce(&store, rank, &text)));
        let is_first = answer.recv_timeout(Duration::from_secs(1)).unwrap_or(true);
        if is_first_to_report() && is_first && is_reported {
            eprintln!("error: {reason}");
        }
        // The others read the reason from the store, which ends with the process that serves it.
        std::thread::sleep(Duration::from_secs(2));
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.place.size
    }

    /// Number of ranks on this machine.
    pub fn local_size(&self) -> usize {
        self.place.local_size
    }

    /// Whether this is the rank that writes files and speaks: rank 0.
    pub fn is_main(&self) -> bool {
        self.place.rank == 0
    }

    /// How tensors are exchanged: `nccl`, `gloo`, or `none`.
    pub fn backend(&self) -> &'static str {
        match &self.link {
            None => "none",
            Some(link) if link.devices.is_some() => "nccl",
            Some(_) => "gloo",
        }
    }

    /// This rank's share of the machine's cores, at least one.
    pub fn cores(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / self.core_sharers).max(1)
    }

    /// The settings of a scorer with this rank's share of the machine's workers: of those that the
    /// settings name, or of one for each core.
    pub fn own_share(&self, mut scorer: ScorerConfig) -> ScorerConfig {
        if self.size() > 1 {
            scorer.jobs = if scorer.jobs == 0 { self.cores() } else { (scorer.jobs / self.core_sharers).max(1) };
        }
        scorer
    }

    /// Prints a status line if this is rank 0.
    pub fn say(&self, line: &str) {
        if self.is_main() {
            status(line);
        }
    }

    /// Prints a warning if this is rank 0.
    pub fn warn(&self, line: &str) {
        if self.is_main() {
            warn(line);
        }
    }

    /// This rank's share of `items`: every `size`-th, from the one with its number on.
    pub fn share<'a, T>(&self, items: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        items.iter().skip(self.place.rank).step_by(self.place.size)
    }

    /// Replaces a contiguous tensor by its sum over the ranks, which is the same bits on all.
    ///
    /// # Errors
    /// Another rank is gone or does not come in time.
    pub fn all_reduce(&self, what: &str, tensor: &Tensor) -> Result<()> {
        self.with_group(tensor.device(), |group| group.all_reduce(tensor), || format!("all-reduce of {what}"))
    }

    /// Sums the ranks' `all [size * n]` and returns this rank's `n` elements of the sum.
    ///
    /// # Errors
    /// As for [`Self::all_reduce`].
    pub fn reduce_scatter(&self, what: &str, all: &Tensor) -> Result<Tensor> {
        if self.link.is_none() {
            return Ok(all.shallow_clone());
        }
        let own = Tensor::zeros([all.size()[0] / self.size() as i64], (all.kind(), all.device()));
        let reduce = |group: &Group| group.reduce_scatter(&own, all);
        self.with_group(all.device(), reduce, || format!("reduce-scatter of {what}"))?;
        Ok(own)
    }

    /// The ranks' tensors `own [n]`, one after another: `[size * n]`.
    ///
    /// # Errors
    /// As for [`Self::all_reduce`].
    pub fn all_gather(&self, what: &str, own: &Tensor) -> Result<Tensor> {
        if self.link.is_none() {
            return Ok(own.shallow_clone());
        }
        let all = Tensor::zeros([own.size()[0] * self.size() as i64], (own.kind(), own.device()));
        let gather = |group: &Group| group.all_gather(&all, own);
        self.with_group(own.device(), gather, || format!("all-gather of {what}"))?;
        Ok(all)
    }

    /// Replaces a contiguous tensor by that of the rank `root`.
    ///
    /// # Errors
    /// As for [`Self::all_reduce`].
    pub fn broadcast(&self, what: &str, tensor: &Tensor, root: usize) -> Result<()> {
        self.with_group(tensor.device(), |group| group.broadcast(tensor, root), || format!("broadcast of {what}"))
    }

    /// The sums over the ranks of each number.
    ///
    /// # Errors
    /// As for [`Self::all_reduce`].
    pub fn sum<const N: usize>(&self, what: &str, numbers: [f64; N]) -> Result<[f64; N]> {
        if self.link.is_none() {
            return Ok(numbers);
        }
        let tensor = Tensor::from_slice(&numbers);
        self.all_reduce(what, &tensor)?;
        let mut sums = [0.0; N];
        tensor.copy_data(&mut sums, N);
        Ok(sums)
    }

    /// The values of all ranks, in order of rank, on every rank.
    ///
    /// # Errors
    /// As for [`Self::all_reduce`].
    pub fn gather<T: Serialize + DeserializeOwned>(&self, what: &str, own: T) -> Result<Vec<T>> {
        if self.link.is_none() {
            return Ok(vec![own]);
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&own, &mut bytes)?;
        let lengths = self.all_gather(what, &Tensor::from_slice(&[bytes.len() as i64]))?;
        let lengths: Vec<i64> = Vec::try_from(&lengths)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        bytes.resize(longest as usize, 0);
        let all = self.all_gather(what, &Tensor::from_slice(&bytes))?;
        let value = |(rank, length): (i64, &i64)| -> Result<T> {
            let part: Vec<u8> = Vec::try_from(all.narrow(0, rank * longest, *length))?;
            Ok(ciborium::from_reader(part.as_slice())?)
        };
        (0..).zip(&lengths).map(value).collect()
    }

    /// What the ranks made of their [shares](Self::share) of `count` items, in the order of the
    /// items, on every rank.
    ///
    /// # Errors
    /// As for [`Self::all_reduce`].
    pub fn gather_shares<T: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        own: Vec<T>,
        count: usize,
    ) -> Result<Vec<T>> {
        let mut shares: Vec<_> = self.gather(what, own)?.into_iter().map(Vec::into_iter).collect();
        let ranks = shares.len();
        (0..count).map(|i| shares[i % ranks].next().context("a rank sent fewer than its share")).collect()
    }

    /// What `make` gives on rank 0, on every rank.
    ///
    /// # Errors
    /// Those of `make`, or another rank is gone.
    pub fn from_main<T: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        // A list, because `T` may be an option itself.
        let own = if self.is_main() { vec![make()?] } else { Vec::new() };
        let all: Vec<Vec<T>> = self.gather(what, own)?;
        all.into_iter().flatten().next().context("rank 0 sent nothing")
    }

    /// Calls `make` on rank 0, then on the first rank of each other machine, then on the others:
    /// what the first ones make or download, the others find.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn main_first<T>(&self, what: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let turn = match (self.place.rank, self.place.local_rank) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        };
        for _ in 0..turn {
            self.barrier(what)?;
        }
        let made = make()?;
        for _ in turn..2 {
            self.barrier(what)?;
        }
        Ok(made)
    }

    /// Waits until all ranks are here, however long that takes: one may be writing or downloading
    /// many gigabytes. A rank that dies meanwhile ends all.
    ///
    /// # Errors
    /// The store is gone.
    pub fn barrier(&self, what: &str) -> Result<()> {
        let Some(link) = &self.link else { return Ok(()) };
        let started = Instant::now();
        let failed = |reason| {
            let (rank, size, operation) = (self.rank(), self.size(), format!("barrier at {what}"));
            DistributedError { rank, size, operation, waited: seconds(started.elapsed()), reason }
        };
        let key = format!("barrier/{}", self.barriers.replace(self.barriers.get() + 1));
        let mut here = link.store.add(&key, 1).map_err(failed)?;
        let mut pause = Pause::default();
        while here < self.size() as i64 {
            pause.sleep();
            here = link.store.add(&key, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Calls `operate` with the group that connects devices such as `device`, if there are several
    /// ranks.
    fn with_group(
        &self,
        device: Device,
        operate: impl FnOnce(&Group) -> c10d::Result<()>,
        operation: impl FnOnce() -> String,
    ) -> Result<()> {
        let Some(link) = &self.link else { return Ok(()) };
        let group = link.devices.as_ref().filter(|_| device.is_cuda()).unwrap_or(&link.processes);
        let started = Instant::now();
        operate(group).map_err(|reason| {
            let (rank, size) = (self.rank(), self.size());
            DistributedError { rank, size, operation: operation(), waited: seconds(started.elapsed()), reason }
        })?;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(link) = self.link.as_mut().filter(|_| !self.has_failed.get()) {
            // SAFETY: it is not used again.
            unsafe { ManuallyDrop::drop(link) }
        }
    }
}

/// The time between two questions to the store, which grows: all ranks ask the same one.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(2))
    }
}

impl Pause {
    fn sleep(&mut self) {
        std::thread::sleep(self.0);
        self.0 = self.0.mul_f64(1.3).min(Duration::from_millis(200));
    }
}

/// Whether nobody in this process has said yet why it ends. The main thread and the one that
/// watches may find out at the same time.
pub fn is_first_to_report() -> bool {
    static HAS_REPORTED: AtomicBool = AtomicBool::new(false);
    !HAS_REPORTED.swap(true, Ordering::SeqCst)
}
