//! Divides an optimiser's tensors among the ranks.

use tch::{Device, Kind, Tensor};

use crate::distributed::World;

/// One of several equal shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 0.
    pub rank: usize,
    /// Number of shares.
    pub size: usize,
}

impl Shard {
    /// The whole.
    pub const WHOLE: Self = Self { rank: 0, size: 1 };

    /// The share of this rank if `is_sharded`, else the whole.
    pub fn of(world: &World, is_sharded: bool) -> Self {
        if is_sharded { Self { rank: world.rank(), size: world.size() } } else { Self::WHOLE }
    }
}

/// The ranks' tensors, in rounds: each round is one reduce-scatter of gradients and one all-gather
/// of weights, for which every rank's part must have the same width.
pub struct Rounds {
    owners: Vec<usize>,
    rounds: Vec<Round>,
    alone: Vec<usize>,
}

/// One operation of all ranks.
pub struct Round {
    /// For each rank, the tensors that it has.
    pub members: Vec<Vec<usize>>,
    /// Elements of the largest of these parts, to which the others are padded.
    pub width: usize,
}

impl Round {
    /// The part of a rank in `all`, the parts of all ranks one after another.
    pub fn segment(&self, all: &Tensor, rank: usize) -> Tensor {
        all.narrow(0, (rank * self.width) as i64, self.width as i64)
    }
}

impl Rounds {
    /// Divides tensors of these sizes among `shard.size` ranks so that all have about the same
    /// number of elements.
    pub fn new(sizes: &[usize], shard: Shard) -> Self {
        let mut by_size: Vec<usize> = (0..sizes.len()).collect();
        by_size.sort_by_key(|&i| std::cmp::Reverse(sizes[i]));
        let widest = ROUND / shard.size.max(1);
        let mut owners = vec![0; sizes.len()];
        let mut alone = Vec::new();
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); shard.size];
        let mut loads = vec![0; shard.size];
        for i in by_size {
            // The largest tensor first, each to the rank that has least.
            let rank = (0..shard.size).min_by_key(|&rank| (loads[rank], rank)).unwrap_or(0);
            loads[rank] += sizes[i];
            owners[i] = rank;
            if sizes[i] > widest { alone.push(i) } else { members[rank].push(i) }
        }
        // The sorted lists are cut alike, so that the parts of a round have similar sizes.
        let mut rounds = Vec::new();
        let mut starts = vec![0; shard.size];
        while (0..shard.size).any(|rank| starts[rank] < members[rank].len()) {
            let mut round = Round { members: Vec::new(), width: 0 };
            for rank in 0..shard.size {
                let (mut part, mut width) = (Vec::new(), 0);
                while let Some(&i) = members[rank].get(starts[rank]) {
                    if !part.is_empty() && width + sizes[i] > widest {
                        break;
                    }
                    part.push(i);
                    width += sizes[i];
                    starts[rank] += 1;
                }
                round.width = round.width.max(width);
                round.members.push(part);
            }
            rounds.push(round);
        }
        Self { owners, rounds, alone }
    }

    /// The rank that has the tensor.
    pub fn owner(&self, tensor: usize) -> usize {
        self.owners[tensor]
    }

    /// Tensors that are too large for a round: padded to their width, the parts of all ranks would
    /// not fit into memory.
    pub fn alone(&self) -> &[usize] {
        &self.alone
    }

    /// The rounds, in the same order on all ranks.
    pub fn iter(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter()
    }
}

/// Most elements of a round, all ranks together: 256 MiB.
const ROUND: usize = 64 << 20;

/// The tensors' elements, one after another, and zeros up to `width`: f32, on `device`.
pub fn flat(tensors: &[Tensor], width: usize, device: Device) -> Tensor {
    let elements: usize = tensors.iter().map(Tensor::numel).sum();
    let all = Tensor::zeros([width.max(elements) as i64], (Kind::Float, device));
    for (mut part, tensor) in unflat(&all, tensors).into_iter().zip(tensors) {
        part.copy_(&tensor.detach());
    }
    all
}

/// Views of the elements of `flat` in the shapes of `tensors`, in order.
pub fn unflat(flat: &Tensor, tensors: &[Tensor]) -> Vec<Tensor> {
    let mut start = 0;
    let part = |tensor: &Tensor| {
        let length = tensor.numel() as i64;
        start += length;
        flat.narrow(0, start - length, length).view_as(tensor)
    };
    tensors.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_has_one_owner_and_shares_are_alike() {
        let sizes = [1000, 10, 400, 300, 300, 20, 5, 1];
        let rounds = Rounds::new(&sizes, Shard { rank: 0, size: 3 });
        assert!(rounds.alone().is_empty());
        let mut seen: Vec<usize> = rounds.iter().flat_map(|round| round.members.concat()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
        for round in rounds.iter() {
            for (rank, part) in round.members.iter().enumerate() {
                assert!(part.iter().all(|&i| rounds.owner(i) == rank));
                assert!(part.iter().map(|&i| sizes[i]).sum::<usize>() <= round.width);
            }
        }
        let load = |rank| (0..sizes.len()).filter(|&i| rounds.owner(i) == rank).map(|i| sizes[i]).sum::<usize>();
        assert_eq!([load(0), load(1), load(2)].iter().max(), Some(&1000));
    }

    #[test]
    fn a_round_is_no_wider_than_its_limit_and_larger_tensors_are_alone() {
        let quarter = ROUND / 4;
        let sizes = [ROUND, quarter, quarter, quarter, quarter, 7];
        let rounds = Rounds::new(&sizes, Shard { rank: 0, size: 2 });
        assert_eq!((rounds.alone(), rounds.owner(0)), (&[0][..], 0));
        // Rank 1 has the four quarters, two a round; rank 0 has the rest.
        let widths: Vec<usize> = rounds.iter().map(|round| round.width).collect();
        assert_eq!(widths, [2 * quarter, 2 * quarter]);
    }

    #[test]
    fn more_ranks_than_tensors_leave_some_without() {
        let rounds = Rounds::new(&[5, 3], Shard { rank: 3, size: 4 });
        assert_eq!(
            rounds.iter().map(|round| round.members.clone()).collect::<Vec<_>>(),
            [[vec![0], vec![1], vec![], vec![]]]
        );
    }

    #[test]
    fn flattened_tensors_come_back() {
        let tensors = [Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([2, 2]), Tensor::from_slice(&[5.0f32])];
        let flat = flat(&tensors, 7, Device::Cpu);
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0]);
        for (back, tensor) in unflat(&flat, &tensors).iter().zip(&tensors) {
            assert_eq!(back, tensor);
        }
    }
}
