//! The worker's reply about one program as bytes. `worker/program.py` states the layout. The cache
//! on disk has the same bytes.

use std::sync::Arc;

use cadwright_rewards::{Bounds, Failure, Geometry, MassProperties, Mesh, Outcome, OutcomeClass, Solid, write_stl};

use crate::answer::Exported;

/// The most characters of a failure's message that are kept.
const LONGEST_MESSAGE: usize = 10_000;

/// Reads little-endian numbers from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(|| "reply ends too early".to_owned())?;
        self.0 = tail;
        Ok(*head)
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], String> {
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(|| "reply ends too early".to_owned())?;
        self.0 = tail;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn f64(&mut self) -> Result<f64, String> {
        Ok(f64::from_le_bytes(self.take()?))
    }

    fn f64s<const N: usize>(&mut self) -> Result<[f64; N], String> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = self.f64()?;
        }
        Ok(values)
    }

    /// The class of the outcome. For a failure, the rest is its message.
    fn class(&mut self) -> Result<Result<(), Failure>, String> {
        let class = usize::from(self.u8()?);
        let class = *OutcomeClass::ALL.get(class).ok_or_else(|| format!("unknown class {class}"))?;
        if class == OutcomeClass::Solid {
            return Ok(Ok(()));
        }
        let error = String::from_utf8_lossy(self.0).chars().take(LONGEST_MESSAGE).collect();
        Ok(Err(Failure { class, error }))
    }
}

/// Decodes a reply and checks it, because the process that wrote it ran somebody's program.
pub fn decode(bytes: &[u8]) -> Result<Outcome, String> {
    let mut reader = Reader(bytes);
    if let Err(failure) = reader.class()? {
        return Ok(Outcome::Failure(failure));
    }
    let volume = reader.f64()?;
    let centroid = reader.f64s::<3>()?;
    let inertia = [reader.f64s::<3>()?, reader.f64s::<3>()?, reader.f64s::<3>()?];
    let bounds = Bounds { min: reader.f64s()?, max: reader.f64s()? };
    let numbers = [volume].into_iter().chain(centroid).chain(inertia.into_iter().flatten());
    if numbers.chain(bounds.min).chain(bounds.max).any(|number| !number.is_finite()) {
        return Err("a mass property is not finite".to_owned());
    }
    let solids = reader.u32()?;
    let malformed = reader.u8()? != 0;
    let iou_uncertain = reader.u8()? != 0;
    let (vertices, triangles) = (reader.u32()? as usize, reader.u32()? as usize);
    if reader.0.len() != vertices * 24 + triangles * 16 {
        let size = reader.0.len();
        return Err(format!("{vertices} vertices and {triangles} triangles do not fill {size} bytes"));
    }
    let mut mesh = Mesh {
        vertices: Vec::with_capacity(vertices),
        triangles: Vec::with_capacity(triangles),
        faces: Vec::with_capacity(triangles),
    };
    for _ in 0..vertices {
        mesh.vertices.push(reader.f64s()?);
    }
    for _ in 0..triangles {
        mesh.triangles.push([reader.u32()?, reader.u32()?, reader.u32()?]);
    }
    for _ in 0..triangles {
        mesh.faces.push(reader.u32()?);
    }
    mesh.check().map_err(|error| error.to_string())?;
    let mass = MassProperties { volume, centroid, inertia, bounds };
    let mut solid = Solid::meshed(mass, mesh, solids, malformed);
    solid.iou_uncertain = iou_uncertain;
    Ok(Outcome::Solid(Arc::new(solid)))
}

/// Decodes the reply with the files of a solid, and checks their form.
pub fn decode_files(bytes: &[u8]) -> Result<Result<Exported, Failure>, String> {
    let mut reader = Reader(bytes);
    if let Err(failure) = reader.class()? {
        return Ok(Err(failure));
    }
    let length = reader.u32()? as usize;
    let step = reader.slice(length)?.to_vec();
    if !step.starts_with(b"ISO-10303-21;") || !step.trim_ascii_end().ends_with(b"END-ISO-10303-21;") {
        return Err(format!("{length} bytes that are no STEP file"));
    }
    let solid = decode(reader.0)?;
    match solid.solid().map(|solid| &solid.geometry) {
        Some(Geometry::Mesh(mesh)) => Ok(Ok(Exported { step, stl: write_stl(mesh) })),
        _ => Err("a STEP file and no mesh".to_owned()),
    }
}

/// Decodes the reply about two programs: `n` IoUs in [0, 1], or `None` for each without an answer.
pub fn decode_ious(bytes: &[u8], n: usize) -> Vec<Option<f64>> {
    let Some((0, numbers)) = bytes.split_first().filter(|(_, numbers)| numbers.len() == 8 * n) else {
        return vec![None; n];
    };
    let ious = numbers.chunks_exact(8).map(|bytes| bytes.try_into().ok().map(f64::from_le_bytes));
    // Booleans have rounding errors: a solid against itself may give a little more than 1.
    let in_range = |iou: &f64| (-1e-6..=1.0 + 1e-6).contains(iou);
    ious.map(|iou| iou.filter(in_range).map(|iou| iou.clamp(0.0, 1.0))).collect()
}

/// The inverse of [`decode`]. `None` for a solid that is not from a worker.
pub fn encode(outcome: &Outcome) -> Option<Vec<u8>> {
    let class = OutcomeClass::ALL.iter().position(|&class| class == outcome.class()).unwrap_or(0);
    let mut bytes = vec![class as u8];
    let solid = match outcome {
        Outcome::Failure(failure) => {
            bytes.extend_from_slice(failure.error.as_bytes());
            return Some(bytes);
        }
        Outcome::Solid(solid) => solid,
    };
    let Geometry::Mesh(mesh) = &solid.geometry else { return None };
    let mass = solid.mass();
    let numbers = [mass.volume].into_iter().chain(mass.centroid);
    let numbers = numbers.chain(mass.inertia.into_iter().flatten());
    for number in numbers.chain(mass.bounds.min).chain(mass.bounds.max) {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&solid.solids()?.to_le_bytes());
    bytes.push(u8::from(solid.malformed));
    bytes.push(u8::from(solid.iou_uncertain));
    bytes.extend_from_slice(&(mesh.vertices.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(mesh.triangles.len() as u32).to_le_bytes());
    for number in mesh.vertices.iter().flatten() {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for index in mesh.triangles.iter().flatten().chain(&mesh.faces) {
        bytes.extend_from_slice(&index.to_le_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Outcome {
        Outcome::Solid(Arc::new(Solid::meshed(
            MassProperties {
                volume: 1.5,
                centroid: [1.0, 2.0, 3.0],
                inertia: [[4.0, 5.0, 6.0], [5.0, 7.0, 8.0], [6.0, 8.0, 9.0]],
                bounds: Bounds { min: [0.0; 3], max: [2.0, 4.0, 6.0] },
            },
            Mesh {
                vertices: vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
                triangles: vec![[0, 1, 2], [2, 1, 0]],
                faces: vec![0, 1],
            },
            2,
            true,
        )))
    }

    #[test]
    fn encoding_round_trips() {
        let failure = Failure { class: OutcomeClass::Empty, error: "nothing é".to_owned() };
        for outcome in [sample(), Outcome::Failure(failure)] {
            assert_eq!(decode(&encode(&outcome).unwrap()), Ok(outcome));
        }
    }

    #[test]
    fn an_iou_is_a_number_in_its_range() {
        let reply = [&[0], &0.25f64.to_le_bytes()[..], &(1.0 + 1e-9f64).to_le_bytes()].concat();
        assert_eq!(decode_ious(&reply, 2), [Some(0.25), Some(1.0)]);
        for wrong in [f64::NAN, 1.5, -0.5] {
            assert_eq!(decode_ious(&[&[0], &wrong.to_le_bytes()[..]].concat(), 1), [None]);
        }
        // One number for two, a failure, nothing.
        for wrong in [&reply[..9], b"\x02ValueError.......", b""] {
            assert_eq!(decode_ious(wrong, 2), [None, None]);
        }
    }

    #[test]
    fn files_are_a_whole_step_file_and_a_mesh() {
        let reply = |step: &[u8], rest: &[u8]| [&[0], &(step.len() as u32).to_le_bytes()[..], step, rest].concat();
        let step = b"ISO-10303-21;\nDATA;\nEND-ISO-10303-21;\n";
        let good = reply(step, &encode(&sample()).unwrap());
        let exported = decode_files(&good).unwrap().unwrap();
        assert_eq!((exported.step.as_slice(), exported.stl.len()), (&step[..], 84 + 2 * 50));
        for length in 0..good.len() {
            assert!(decode_files(&good[..length]).is_err(), "{length} of {} bytes", good.len());
        }
        let cut = reply(&step[..20], &encode(&sample()).unwrap());
        assert!(decode_files(&cut).unwrap_err().contains("no STEP file"));
        let failed = reply(step, b"\x02ValueError");
        assert!(decode_files(&failed).unwrap_err().contains("no mesh"));
        let failure = Failure { class: OutcomeClass::Exception, error: "ValueError".to_owned() };
        assert_eq!(decode_files(b"\x02ValueError"), Ok(Err(failure)));
    }

    #[test]
    fn a_message_of_megabytes_is_cut() {
        let reply = [b"\x02".as_slice(), "é".repeat(1 << 20).as_bytes()].concat();
        assert_eq!(decode(&reply).unwrap().error(), Some("é".repeat(10_000).as_str()));
    }

    #[test]
    fn damaged_replies_are_refused() {
        let bytes = encode(&sample()).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode(&longer).is_err());
        // The first index of the first triangle comes after the header and 3 vertices.
        let mut wild = bytes.clone();
        wild[1 + 19 * 8 + 14 + 3 * 24] = 200;
        assert!(decode(&wild).unwrap_err().contains("vertex 200"));
        let mut unknown = bytes;
        unknown[0] = 99;
        assert!(decode(&unknown).unwrap_err().contains("99"));
    }
}
