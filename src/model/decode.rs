//! Attention of one new token for each sequence, as decoding needs it, on the CPU in f32.
//!
//! libtorch would compute two batched products of a few rows each, which read the cached keys and values at a fraction of the speed
//! of memory. bf16 is left to it, and CUDA to its fused kernel.

use std::thread;

use tch::{Device, Kind, Tensor};

/// Whether [`attend_one`] is for the queries `q [b, heads, t, d]`: one for each sequence, whose gradient nobody asks for.
pub(super) fn is_for(q: &Tensor) -> bool {
    let is_alone = q.size()[2] == 1 && q.size()[3] % LANES as i64 == 0 && !q.requires_grad();
    is_alone && q.device() == Device::Cpu && q.kind() == Kind::Float
}

/// Grouped-query attention: `q [b, heads, 1, d]`, `k, v [b, kv_heads, s, d]` with a contiguous last dimension, and, where not all keys
/// are seen, what is added to the scores, `mask [b or 1, 1, 1, s]`. All f32. Returns `[b, heads, 1, d]`.
pub(super) fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let (b, heads, _, d) = q.size4().expect("q: [b, heads, 1, d]");
    let groups = (heads / k.size()[1]) as usize;
    let q = q.contiguous();
    let mask = mask.map(|mask| mask.expand([b, 1, 1, k.size()[2]], false).contiguous());
    let (queries, keys, values) = (Rows::of(&q), Rows::of(k), Rows::of(v));
    let mask = mask.as_ref().map(Rows::of);

    let mut mixed = vec![0.0; (b * heads * d) as usize];
    let (heads, d) = (heads as usize, d as usize);
    let attend = |first: usize, mixed: &mut [f32]| {
        let mut weights = vec![0.0; keys.len];
        for (i, mixed) in mixed.chunks_mut(d).enumerate() {
            let (sequence, head) = (first + i / heads, i % heads);
            let query = queries.row(sequence, head, 0);
            for (j, weight) in weights.iter_mut().enumerate() {
                *weight = dot(query, keys.row(sequence, head / groups, j)) / (d as f32).sqrt();
            }
            if let Some(mask) = &mask {
                let seen = mask.row(sequence, 0, 0);
                weights.iter_mut().zip(seen).for_each(|(weight, mask)| *weight += mask);
            }
            softmax(&mut weights);
            for (j, &weight) in weights.iter().enumerate() {
                let value = values.row(sequence, head / groups, j);
                mixed.iter_mut().zip(value).for_each(|(mixed, value)| *mixed += weight * value);
            }
        }
    };
    let per_thread = (b as usize).div_ceil(tch::get_num_threads().max(1) as usize);
    thread::scope(|scope| {
        for (i, mixed) in mixed.chunks_mut(per_thread * heads * d).enumerate() {
            let attend = &attend;
            scope.spawn(move || attend(i * per_thread, mixed));
        }
    });
    Tensor::from_slice(&mixed).view([b, heads as i64, 1, d as i64])
}

/// A tensor `[b, heads, len, d]` of f32 in memory.
struct Rows<'a> {
    elements: &'a [f32],
    strides: [usize; 3],
    len: usize,
    d: usize,
}

impl<'a> Rows<'a> {
    fn of(tensor: &'a Tensor) -> Self {
        let (size, strides) = (tensor.size(), tensor.stride());
        assert!(tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && size.len() == 4 && strides[3] == 1);
        let last: i64 = size.iter().zip(&strides).map(|(size, stride)| (size - 1) * stride).sum();
        // SAFETY: a strided CPU tensor of f32 has its first element at its pointer and its last one `last` after it; the tensor is
        // borrowed as long as the slice, and nobody writes into it meanwhile.
        let elements = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), last as usize + 1) };
        let strides = [strides[0] as usize, strides[1] as usize, strides[2] as usize];
        Self { elements, strides, len: size[2] as usize, d: size[3] as usize }
    }

    fn row(&self, sequence: usize, head: usize, position: usize) -> &[f32] {
        let [b, h, t] = self.strides;
        let first = sequence * b + head * h + position * t;
        &self.elements[first..first + self.d]
    }
}

/// Sums side by side, which the compiler keeps in vector registers.
const LANES: usize = 16;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum()
}

fn softmax(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - most).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}
