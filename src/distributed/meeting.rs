//! How ranks find the keys that belong to this start of theirs.
//!
//! torchrun's store outlives the ranks: when they are started again, it still has the keys of the
//! ranks before, and torchrun counts only some of its restarts. So rank 0 draws a name for each
//! start, and tells it to every rank that greets it with a number of its own: an answer to that
//! number cannot be an old one.

use std::time::{Duration, Instant};

use super::c10d::{Result, Store};

/// The name of this start, the same on all ranks. `store` is one that outlives the ranks.
pub(super) fn agree(store: &Store, rank: usize, size: usize, timeout: Duration) -> Result<String> {
    let started = Instant::now();
    let pause = || -> Result<()> {
        if started.elapsed() > timeout {
            return Err("not all ranks came".into());
        }
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    };
    let own: u64 = rand::random();
    let own = format!("{own:016x}");
    if rank > 0 {
        store.set(&format!("hello/{rank}"), &own)?;
        loop {
            if let Some(name) = store.find(&format!("welcome/{own}"))? {
                store.add(&format!("{name}/acknowledged"), 1)?;
                return Ok(name);
            }
            pause()?;
        }
    }
    let mut greeted = vec![String::new(); size];
    // Greetings of the ranks before are answered too; nobody reads that.
    while store.add(&format!("{own}/acknowledged"), 0)? < size as i64 - 1 {
        for (rank, known) in greeted.iter_mut().enumerate().skip(1) {
            match store.find(&format!("hello/{rank}"))? {
                Some(number) if number != *known => {
                    store.set(&format!("welcome/{number}"), &own)?;
                    *known = number;
                }
                _ => {}
            }
        }
        pause()?;
    }
    Ok(own)
}
