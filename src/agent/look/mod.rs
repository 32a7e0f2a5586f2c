//! Compares the picture of a candidate with the input picture: `image_score`, without ground truth.
//!
//! A candidate is drawn as the data set draws its parts, in one of the given views. Both pictures
//! are taken apart into silhouette, lines and the tones of faces (`features`); each is compared
//! in a way that blur, line width, grey level and JPEG's noise change little (`compare`). An
//! input picture may be enlarged and shifted: zoom and shift are fitted to each candidate
//! (`fit`). But a clean picture is framed automatically, and the framing says something about
//! the part; so leaving the automatic framing has a price, and the score is the better one of both.
//!
//! The score is a pure function of the pictures, the options and the solid. `docs/agent.md` says
//! how well it tracks the IoU, and what it cannot see.

mod compare;
mod difference;
mod features;
mod fit;
mod map;
mod plausible;
#[cfg(test)]
mod tests;

use cadwright_rewards::csg::{Aabb, Vec3};
use cadwright_rewards::{Geometry, Solid};
use image::RgbImage;

use crate::data::render::{Canvas, Framing, View, canvas_side, draw_csg, draw_mesh};
use compare::Agreement;
pub use difference::{Difference, Kind, Place};
use features::{Features, SIDE};
pub use fit::Placement;
use fit::Target;
pub use plausible::plausibility;

/// How pictures are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct LookOptions {
    /// The views that a picture may show. If there are several, each picture is compared in the one
    /// that fits a candidate best; several pictures show different views.
    pub views: Vec<View>,
    /// Whether it is known which picture shows which view: the first one the first view, and so on.
    pub in_order: bool,
    /// Whether pictures may be enlarged and shifted. If not, only the automatic framing counts,
    /// which saves an eighth of the time.
    pub fit: bool,
}

impl Default for LookOptions {
    fn default() -> Self {
        Self { views: vec![View::isometric()], in_order: false, fit: true }
    }
}

/// The pictures of one part, prepared for the comparison with many candidates.
#[derive(Debug, Clone)]
pub struct Look {
    pictures: Vec<Prepared>,
    options: LookOptions,
}

/// An input picture.
#[derive(Debug, Clone)]
struct Prepared {
    features: Features,
    target: Target,
    /// Side in pixels.
    side: u32,
}

/// How far the pictures of a candidate agree with the input pictures. Every score is in [0, 1]. It
/// is 1 for the same picture, and 0 for a solid that cannot be seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageScore {
    /// `image_score`: the mean over the pictures.
    pub score: f64,
    /// Intersection over union of the silhouettes; the mean over the pictures, like the next two.
    pub silhouette: f64,
    /// Agreement of the lines.
    pub edges: f64,
    /// Agreement of the faces' tones where both silhouettes are.
    pub shading: f64,
    /// For each picture, what was fitted.
    pub pictures: Vec<PictureFit>,
}

/// What was fitted to a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureFit {
    /// The view that fits best.
    pub view: View,
    /// Zoom and shift of the input picture against the automatic framing of the candidate.
    pub placement: Placement,
    /// The score of this picture.
    pub score: f64,
}

/// The price of a placement that is not the automatic one, at its highest: a share of the score.
const PRICE: f64 = 0.02;

impl Look {
    /// Prepares the pictures of one part. They may have any size. Without pictures every score is
    /// 0; without views the data set's is taken.
    pub fn new(pictures: &[RgbImage], options: &LookOptions) -> Self {
        let mut options = options.clone();
        if options.views.is_empty() {
            options.views.push(View::isometric());
        }
        let prepare = |picture: &RgbImage| {
            let features = Features::of_picture(picture);
            let target = Target::new(&features);
            Prepared { features, target, side: picture.width().max(picture.height()).max(1) }
        };
        Self { pictures: pictures.iter().map(prepare).collect(), options }
    }

    /// Scores a candidate.
    pub fn score(&self, solid: &Solid) -> ImageScore {
        if self.pictures.is_empty() || !is_visible(solid) {
            return ImageScore::default();
        }
        let drawn: Vec<(View, Features)> =
            self.options.views.iter().map(|view| (*view, drawn(solid, *view, Placement::IDENTITY))).collect();
        let best = self.assign(&drawn);
        let mean = |part: fn(&Fitted) -> f64| best.iter().map(part).sum::<f64>() / self.pictures.len() as f64;
        ImageScore {
            score: mean(|fitted| fitted.score),
            silhouette: mean(|fitted| fitted.agreement.silhouette),
            edges: mean(|fitted| fitted.agreement.edges),
            shading: mean(|fitted| fitted.agreement.shading),
            pictures: best.iter().map(Fitted::report).collect(),
        }
    }

    /// Draws a candidate in the view and the framing of the first picture, at its size, in the data
    /// set's style. A solid that cannot be seen gives a white picture.
    pub fn render(&self, solid: &Solid) -> RgbImage {
        let score = self.score(solid);
        let (view, placement) = match score.pictures.first() {
            Some(fit) => (fit.view, fit.placement),
            None => (self.options.views[0], Placement::IDENTITY),
        };
        let side = self.pictures.first().map_or(SIDE as u32, |picture| picture.side);
        draw(solid, view, placement, side).to_picture(side)
    }

    /// Where the silhouette of a candidate and that of the first picture disagree, the largest
    /// difference first. Empty if they agree, and if there is nothing to compare.
    pub fn differences(&self, solid: &Solid) -> Vec<Difference> {
        let score = self.score(solid);
        let Some((picture, fit)) = self.pictures.first().zip(score.pictures.first()) else {
            return Vec::new();
        };
        let candidate = drawn(solid, fit.view, fit.placement);
        difference::differences(&picture.features.silhouette, &candidate.silhouette)
    }

    /// For each picture its view, or if that is not known, the one in which the candidate fits it
    /// best, and the placement. Pictures
    /// show different views if there are enough: the best pair of a picture and a view is taken
    /// first, then the best one of the others.
    fn assign(&self, drawn: &[(View, Features)]) -> Vec<Fitted> {
        if self.options.in_order {
            let pairs = self.pictures.iter().zip(drawn);
            return pairs.map(|(picture, (view, features))| self.in_view(picture, *view, features)).collect();
        }
        let fits: Vec<Vec<Fitted>> = self
            .pictures
            .iter()
            .map(|picture| drawn.iter().map(|(view, features)| self.in_view(picture, *view, features)).collect())
            .collect();
        let mut taken: Vec<Option<usize>> = vec![None; fits.len()];
        for _ in 0..fits.len() {
            let is_free = |view: usize| fits.len() > drawn.len() || !taken.contains(&Some(view));
            let open = (0..fits.len()).filter(|picture| taken[*picture].is_none());
            let pairs = open.flat_map(|picture| (0..drawn.len()).map(move |view| (picture, view)));
            let best = pairs
                .filter(|(_, view)| is_free(*view))
                .reduce(|best, next| if fits[next.0][next.1].score > fits[best.0][best.1].score { next } else { best });
            if let Some((picture, view)) = best {
                taken[picture] = Some(view);
            }
        }
        fits.iter().zip(taken).filter_map(|(fits, view)| view.map(|view| fits[view])).collect()
    }

    /// The better one of the automatic framing and of the fitted placement.
    fn in_view(&self, picture: &Prepared, view: View, candidate: &Features) -> Fitted {
        let automatic = Fitted::new(&picture.features, candidate, view, Placement::IDENTITY);
        if !self.options.fit || candidate.is_empty() {
            return automatic;
        }
        let placement = picture.target.fit(candidate, Placement::IDENTITY);
        if placement.distance(&Placement::IDENTITY) < 0.05 {
            return automatic;
        }
        let fitted = Fitted::new(&picture.features, &candidate.moved(&placement), view, placement);
        if fitted.score > automatic.score { fitted } else { automatic }
    }
}

/// A comparison in one view and placement.
#[derive(Debug, Clone, Copy)]
struct Fitted {
    view: View,
    placement: Placement,
    agreement: Agreement,
    score: f64,
}

impl Fitted {
    fn new(input: &Features, candidate: &Features, view: View, placement: Placement) -> Self {
        let agreement = Agreement::of(input, candidate);
        let distance = placement.distance(&Placement::IDENTITY);
        let price = PRICE * (1.0 - (-0.5 * distance * distance).exp());
        Self { view, placement, agreement, score: agreement.score() * (1.0 - price) }
    }

    fn report(&self) -> PictureFit {
        PictureFit { view: self.view, placement: self.placement, score: self.score }
    }
}

/// Whether a solid has finite bounds and is no sheet.
fn is_visible(solid: &Solid) -> bool {
    if solid.known_volume() == Some(0.0) {
        return false;
    }
    let bounds = solid.bounds();
    (0..3).all(|axis| {
        let size = bounds.max[axis] - bounds.min[axis];
        size.is_finite() && size > 0.0
    })
}

/// The features of a candidate's picture.
fn drawn(solid: &Solid, view: View, placement: Placement) -> Features {
    Features::of_picture(&draw(solid, view, placement, SIDE as u32).to_picture(SIDE as u32))
}

/// Draws a solid at the resolution of the data set, for a picture of `size` pixels a side.
fn draw(solid: &Solid, view: View, placement: Placement, size: u32) -> Canvas {
    let side = canvas_side(size);
    if !is_visible(solid) {
        return Canvas::new(side);
    }
    let bounds = solid.bounds();
    let bounds = Aabb { min: Vec3::from(bounds.min), max: Vec3::from(bounds.max) };
    let shift = placement.shift.map(|share| share * side as f64);
    let framing = Framing::fit(&bounds, view, side).moved(placement.zoom, shift);
    match &solid.geometry {
        Geometry::Csg(csg) => draw_csg(csg, framing),
        Geometry::Mesh(mesh) => {
            draw_mesh(&mesh.vertices, &mesh.triangles, &mesh.faces, framing).unwrap_or_else(|_| Canvas::new(side))
        }
    }
}
