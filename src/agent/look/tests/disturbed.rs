//! Pictures that were not drawn by this renderer: the true solid still wins.

use super::*;

/// A picture through a camera: every tone is grey.
struct Camera {
    zoom: f64,
    /// Pixels to the right and down.
    shift: [f64; 2],
    /// Deviation of the blur in pixels.
    blur: f32,
    gain: f32,
    offset: f32,
    /// Pixels that a line is wider on each side.
    bolder: usize,
    jpeg: Option<f32>,
}

const CLEAN: Camera = Camera { zoom: 1.0, shift: [0.0; 2], blur: 0.0, gain: 1.0, offset: 0.0, bolder: 0, jpeg: None };

impl Camera {
    fn take(&self, picture: &RgbImage) -> RgbImage {
        let side = picture.width() as usize;
        let mut darkness = Map::of_picture(picture, 1.0, side);
        if self.bolder > 0 {
            // Darkens what is next to a line, and nothing else.
            let wide = darkness.highest(self.bolder);
            darkness = darkness.zip(&wide, |own, wide| if wide > 0.9 { wide } else { own });
        }
        darkness = darkness.moved(self.zoom as f32, self.shift.map(|pixels| (pixels / side as f64) as f32));
        if self.blur > 0.0 {
            darkness = darkness.blurred(self.blur);
        }
        let grey = |value: f32| (255.0 * (self.gain * (1.0 - value) + self.offset)).round().clamp(0.0, 255.0) as u8;
        let taken = RgbImage::from_fn(side as u32, side as u32, |x, y| {
            Rgb([grey(darkness.values()[y as usize * side + x as usize]); 3])
        });
        self.jpeg.map_or(taken.clone(), |quality| through_jpeg(&taken, quality))
    }
}

fn through_jpeg(picture: &RgbImage, quality: f32) -> RgbImage {
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_size(picture.width() as usize, picture.height() as usize);
    encoder.set_quality(quality);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(picture.as_raw()).unwrap();
    crate::data::image::decode_rgb(&encoder.finish().unwrap()).unwrap()
}

/// By name: a camera, the side of its pictures, and the least score of the true solid.
const CAMERAS: [(&str, Camera, u32, f64); 14] = [
    ("enlarged by 3 %", Camera { zoom: 1.03, ..CLEAN }, 112, 0.93),
    ("enlarged by 10 %", Camera { zoom: 1.1, ..CLEAN }, 224, 0.93),
    ("made smaller by 5 %", Camera { zoom: 0.95, ..CLEAN }, 112, 0.93),
    ("shifted", Camera { shift: [4.0, -3.0], ..CLEAN }, 112, 0.95),
    ("blurred", Camera { blur: 1.0, ..CLEAN }, 112, 0.9),
    ("blurred, large", Camera { blur: 3.0, ..CLEAN }, 448, 0.9),
    ("lighter", Camera { gain: 0.6, offset: 0.4, ..CLEAN }, 112, 0.97),
    ("darker", Camera { gain: 0.6, ..CLEAN }, 112, 0.97),
    ("overexposed", Camera { gain: 1.0, offset: 0.1, ..CLEAN }, 112, 0.93),
    ("lines of 3 pixels", Camera { bolder: 1, ..CLEAN }, 448, 0.93),
    ("lines of 5 pixels", Camera { bolder: 2, ..CLEAN }, 448, 0.87),
    ("JPEG", Camera { jpeg: Some(50.0), ..CLEAN }, 112, 0.88),
    ("JPEG, large", Camera { jpeg: Some(50.0), ..CLEAN }, 448, 0.95),
    (
        "all at once",
        Camera { zoom: 1.07, shift: [3.0, 2.0], blur: 0.6, gain: 0.8, offset: 0.15, bolder: 0, jpeg: Some(70.0) },
        112,
        0.88,
    ),
];

/// Parts with one error each, beside the first of [`PARTS`].
const WRONG: [&str; 7] = [
    "cq.Workplane().box(4, 3, 1)",
    "cq.Workplane().box(4, 3, 1).cut(cq.Workplane().center(0.4, 0.5).circle(0.6).extrude(4, both=True))",
    "cq.Workplane().box(4, 3, 1).cut(cq.Workplane().center(1, 0.5).circle(0.9).extrude(4, both=True))",
    "cq.Workplane().box(4, 3, 1).union(cq.Workplane().center(1, 0.5).circle(0.6).extrude(1))",
    "cq.Workplane().box(4, 3, 1.5).cut(cq.Workplane().center(1, 0.5).circle(0.6).extrude(4, both=True))",
    "cq.Workplane().box(4, 2.2, 1).cut(cq.Workplane().center(1, 0.5).circle(0.6).extrude(4, both=True))",
    "cq.Workplane().box(3, 4, 1).cut(cq.Workplane().center(1, 0.5).circle(0.6).extrude(4, both=True))",
];

#[test]
fn the_true_solid_beats_wrong_ones_through_every_camera() {
    let solid = build(PARTS[0]);
    let wrong = WRONG.map(build);
    for (name, camera, size, least) in &CAMERAS {
        let taken = camera.take(&picture(&solid, View::isometric(), *size));
        let look = Look::new(&[taken], &LookOptions::default());
        let found = look.score(&solid);
        let best = wrong.iter().map(|wrong| look.score(wrong).score).fold(0.0, f64::max);
        println!("{name}: {:.4}, the best wrong one {best:.4}, {:?}", found.score, found.pictures[0].placement);
        assert!(found.score > *least, "{name}: {found:?}");
        assert!(found.score > best + 0.02, "{name}: {:.4}, but a wrong one scores {best:.4}", found.score);
    }
}

#[test]
fn zoom_and_shift_are_measured() {
    for part in PARTS {
        let solid = build(part);
        let camera = Camera { zoom: 1.06, shift: [5.0, -4.0], ..CLEAN };
        let taken = camera.take(&picture(&solid, View::isometric(), 224));
        let fit = Look::new(&[taken], &LookOptions::default()).score(&solid).pictures[0].placement;
        assert!((fit.zoom - 1.06).abs() < 0.01, "{part}: {fit:?}");
        // In shares of the side: half a pixel of the picture.
        let [x, y] = [fit.shift[0] - 5.0 / 224.0, fit.shift[1] + 4.0 / 224.0];
        assert!(x.abs() < 0.5 / 224.0 && y.abs() < 0.5 / 224.0, "{part}: {fit:?}");
        // Without a fit the picture looks like that of another part.
        let fixed = LookOptions { fit: false, ..LookOptions::default() };
        let taken = camera.take(&picture(&solid, View::isometric(), 224));
        assert!(Look::new(&[taken], &fixed).score(&solid).score < 0.9, "{part}");
    }
}

#[test]
fn a_clean_picture_keeps_its_framing() {
    // Both are seen as a hexagon, but the box around the second one is larger: framed
    // automatically, it is smaller. Zoomed, it would fit well.
    let cube = build("cq.Workplane().box(2, 2, 2)");
    let cylinder = build("cq.Workplane().circle(1.0).extrude(2)");
    for solid in [&cube, &cylinder] {
        let found = look_at(solid).score(solid);
        assert_eq!((found.score, found.pictures[0].placement), (1.0, Placement::IDENTITY));
    }
}
