//! Faces and edges of a prism, and how selectors choose among them.

use std::f64::consts::PI;
use std::rc::Rc;

use super::shapes::Body;
use crate::csg::{CsgSolid, Edge, Extrusion, Operation, Plane, Region, Vec2, Vec3, Wire};
use crate::native::python::Stop;
use crate::native::wires::CLEARANCE;

/// The properties of a face, an edge or a vertex that a selector uses.
#[derive(Debug)]
pub struct Element {
    /// Centre of mass.
    pub center: Vec3,
    /// The largest distance of the true centre from `center`, across the prism's axis. It is not
    /// zero for a seam, whose position on its circle is unknown.
    spread: f64,
    /// The normal of a plane face, or the direction of a straight edge.
    pub direction: Option<Vec3>,
    /// `geomType()`.
    kind: &'static str,
}

/// The location of an edge of a prism. Wire 0 is the outer one; the holes follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EdgePlace {
    /// Around a cap, over an edge of the outline.
    Cap { high: bool, wire: usize, edge: usize },
    /// Upright, over the corner at the end of an edge of the outline.
    Upright { wire: usize, edge: usize },
    /// The seam that closes the face over a circle.
    Seam,
}

/// Faces and edges of a body that is a single prism.
#[derive(Debug)]
pub struct Topology {
    pub body: Rc<Body>,
    pub prism: Extrusion,
    /// The lower and the upper cap, then the sides in the order of the region's edges.
    pub faces: Vec<Element>,
    pub edges: Vec<Element>,
    pub places: Vec<EdgePlace>,
    /// The two faces beside each edge.
    beside: Vec<[usize; 2]>,
}

impl Topology {
    /// Returns the faces and edges of a body, or `None` if the body is not known to be a single
    /// prism.
    pub fn of(body: &Rc<Body>) -> Result<Option<Rc<Self>>, Stop> {
        let Some(prism) = body.shape()?.and_then(as_prism) else { return Ok(None) };
        if body.tangled || wires(&prism.region).any(Wire::has_smooth_joint) {
            // The kernel may have joined faces that meet smoothly.
            return Ok(None);
        }
        Ok(Some(Rc::new(Self::new(body, prism))))
    }

    fn new(body: &Rc<Body>, prism: Extrusion) -> Self {
        let Extrusion { plane, region, low, high } = &prism;
        let (middle, centroid) = ((low + high) / 2.0, region.centroid());
        let flat = |center: Vec3, normal: Vec3| Element { center, spread: 0.0, direction: Some(normal), kind: "PLANE" };
        let mut faces =
            vec![flat(plane.to_space(centroid, *low), -plane.z), flat(plane.to_space(centroid, *high), plane.z)];
        let (mut edges, mut places, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        for (number, wire) in wires(region).enumerate() {
            let first = faces.len();
            let count = wire.edges().len();
            let outward = if (wire.signed_area() > 0.0) == (number == 0) { 1.0 } else { -1.0 };
            for (index, edge) in wire.edges().iter().enumerate() {
                let along = match edge {
                    Edge::Line { from, to } => Some((to - from).normalize()),
                    _ => None,
                };
                let center = plane.to_space(edge.centroid(), middle);
                faces.push(match along {
                    Some(along) => flat(center, (plane.x * along.y - plane.y * along.x) * outward),
                    None => Element { center, spread: 0.0, direction: None, kind: "CYLINDER" },
                });
                for (high, height) in [(false, *low), (true, *high)] {
                    edges.push(Element {
                        center: plane.to_space(edge.centroid(), height),
                        spread: 0.0,
                        direction: along.map(|along| plane.x * along.x + plane.y * along.y),
                        kind: if along.is_some() { "LINE" } else { "CIRCLE" },
                    });
                    places.push(EdgePlace::Cap { high, wire: number, edge: index });
                    beside.push([usize::from(high), first + index]);
                }
                let upright = |center: Vec2, spread: f64| Element {
                    center: plane.to_space(center, middle),
                    spread,
                    direction: Some(plane.z),
                    kind: "LINE",
                };
                match *edge {
                    Edge::Circle { center, radius } => {
                        edges.push(upright(center, radius));
                        places.push(EdgePlace::Seam);
                        beside.push([first + index; 2]);
                    }
                    Edge::Line { to, .. } | Edge::Arc { to, .. } => {
                        edges.push(upright(to, 0.0));
                        places.push(EdgePlace::Upright { wire: number, edge: index });
                        beside.push([first + index, first + (index + 1) % count]);
                    }
                }
            }
        }
        Self { body: Rc::clone(body), faces, edges, places, beside, prism }
    }

    /// Returns the centre of an edge. Declines a seam.
    pub fn center_of_edge(&self, edge: usize) -> Result<Vec3, Stop> {
        match self.edges[edge].spread {
            0.0 => Ok(self.edges[edge].center),
            _ => Err(Stop::decline("centre of a seam", "")),
        }
    }

    /// Returns the edges of faces.
    pub fn edges_of(&self, faces: &[usize]) -> Vec<usize> {
        (0..self.edges.len()).filter(|edge| self.beside[*edge].iter().any(|face| faces.contains(face))).collect()
    }

    /// Returns the corners at the ends of edges. Declines a circle, whose only vertex lies at its
    /// seam.
    pub fn vertices_of(&self, edges: &[usize]) -> Result<Vec<Vec3>, Stop> {
        let Extrusion { plane, region, low, high } = &self.prism;
        let outlines: Vec<&Wire> = wires(region).collect();
        let mut found: Vec<Vec3> = Vec::new();
        for edge in edges {
            let ends = match self.places[*edge] {
                EdgePlace::Cap { high: is_high, wire, edge } => {
                    let height = if is_high { *high } else { *low };
                    outlines[wire].edges()[edge].ends().map(|(from, to)| [(from, height), (to, height)])
                }
                EdgePlace::Upright { wire, edge } => {
                    outlines[wire].edges()[edge].ends().map(|(_, to)| [(to, *low), (to, *high)])
                }
                EdgePlace::Seam => None,
            };
            for (at, height) in ends.ok_or_else(|| Stop::decline("vertex of a circle", ""))? {
                let point = plane.to_space(at, height);
                if found.iter().all(|known| (known - point).norm() > CLEARANCE) {
                    found.push(point);
                }
            }
        }
        Ok(found)
    }

    /// Returns the middle of the box around a face.
    pub fn middle_of_face(&self, face: usize) -> Vec3 {
        let Extrusion { plane, region, low, high } = &self.prism;
        let thin = |low: f64, high: f64| Extrusion { low, high, ..self.prism.clone() };
        let bounds = match face {
            0 => CsgSolid::from(thin(*low, *low)).bounds(),
            1 => CsgSolid::from(thin(*high, *high)).bounds(),
            side => {
                let ends = region.edges().nth(side - 2).and_then(Edge::ends);
                let ends = ends.map_or(Vec::new(), |(from, to)| vec![from, to]);
                let corners = ends.iter().flat_map(|end| [*low, *high].map(|height| plane.to_space(*end, height)));
                crate::csg::Aabb::of_points(corners)
            }
        };
        bounds.map_or(self.faces[face].center, |bounds| bounds.center())
    }
}

/// Returns the outer wire, then the holes.
pub fn wires(region: &Region) -> impl Iterator<Item = &Wire> {
    std::iter::once(region.outer()).chain(region.holes())
}

/// Returns an outline in the coordinates of another plane that is parallel to its own.
pub fn carried(wire: &Wire, from: &Plane, to: &Plane) -> Option<Wire> {
    let point = |p: Vec2| to.to_local(from.to_space(p, 0.0)).xy();
    let is_turned = from.z.dot(&to.z) < 0.0;
    let edges = wire.edges().iter().map(|edge| match *edge {
        Edge::Line { from, to } => Edge::Line { from: point(from), to: point(to) },
        Edge::Circle { center, radius } => Edge::Circle { center: point(center), radius },
        Edge::Arc { from, to, center, radius, counter_clockwise } => Edge::Arc {
            from: point(from),
            to: point(to),
            center: point(center),
            radius,
            counter_clockwise: counter_clockwise != is_turned,
        },
    });
    Wire::new(edges.collect()).ok()
}

/// Returns the heights of a prism's caps over another plane that is parallel to its own, in
/// ascending order.
pub fn heights(prism: &Extrusion, plane: &Plane) -> (f64, f64) {
    let [a, b] = [prism.low, prism.high].map(|height| plane.to_local(prism.plane.to_space(Vec2::zeros(), height)).z);
    (a.min(b), a.max(b))
}

/// The relation of two outlines that keep clear of each other.
#[derive(PartialEq)]
enum Relation {
    Inside,
    Around,
    Apart,
}

/// Returns a point of an outline.
fn point_of(wire: &Wire) -> Vec2 {
    match &wire.edges()[0] {
        Edge::Circle { center, radius } => center + Vec2::new(*radius, 0.0),
        edge => edge.ends().map_or(Vec2::zeros(), |(from, _)| from),
    }
}

/// Returns the smallest distance between two outlines.
pub fn gap(a: &Wire, b: &Wire) -> f64 {
    let pairs = a.edges().iter().flat_map(|edge| b.edges().iter().map(move |other| edge.gap(other)));
    pairs.fold(f64::INFINITY, f64::min)
}

fn relation(inner: &Wire, outer: &Wire) -> Option<Relation> {
    if gap(inner, outer) < CLEARANCE {
        return None;
    }
    Some(if outer.contains(point_of(inner)) {
        Relation::Inside
    } else if inner.contains(point_of(outer)) {
        Relation::Around
    } else {
        Relation::Apart
    })
}

/// Returns the prism that a tree stands for. Every body cut from it must either miss it, or go
/// through from cap to cap and keep clear of everything else. Returns `None` for any other tree.
pub fn as_prism(tree: &CsgSolid) -> Option<Extrusion> {
    let (left, right) = match tree {
        CsgSolid::Extrusion(prism) => return Some(prism.clone()),
        CsgSolid::Boolean(Operation::Cut, left, right) => (left, right),
        _ => return None,
    };
    let prism = as_prism(left)?;
    let mut holes = prism.region.holes().to_vec();
    for tool in prisms_of_union(right)? {
        if tool.plane.z.cross(&prism.plane.z).norm() > 1e-9 || !tool.region.holes().is_empty() {
            return None;
        }
        let (low, high) = heights(tool, &prism.plane);
        let hole = carried(tool.region.outer(), &tool.plane, &prism.plane)?;
        match relation(&hole, prism.region.outer())? {
            Relation::Apart => continue,
            Relation::Around => return None,
            Relation::Inside if low < prism.low + 1e-9 && high > prism.high - 1e-9 => {}
            Relation::Inside => return None,
        }
        let known: Vec<Relation> = holes.iter().map(|known| relation(&hole, known)).collect::<Option<_>>()?;
        if known.iter().any(|relation| *relation != Relation::Apart) {
            return None;
        }
        holes.push(hole);
    }
    Some(Extrusion { region: Region::new(prism.region.outer().clone(), holes), ..prism })
}

/// Returns the leaves of a union of prisms, or `None` for any other tree.
fn prisms_of_union(tree: &CsgSolid) -> Option<Vec<&Extrusion>> {
    match tree {
        CsgSolid::Extrusion(prism) => Some(vec![prism]),
        CsgSolid::Boolean(Operation::Union, left, right) => {
            Some([prisms_of_union(left)?, prisms_of_union(right)?].concat())
        }
        _ => None,
    }
}

/// A selector in CadQuery's notation.
enum Selector {
    /// `>X`, `<X[1]`.
    Extreme {
        direction: Vec3,
        farthest: bool,
        index: Option<i64>,
    },
    /// `|X`
    Parallel(Vec3),
    /// `#X`
    Perpendicular(Vec3),
    /// `+X`, `-X`, `X`
    Along(Vec3),
    /// `%PLANE`
    Kind(String),
    Not(Box<Selector>),
    And(Vec<Selector>),
    Or(Vec<Selector>),
}

fn unknown(text: &str) -> Stop {
    Stop::decline("selector", text)
}

impl Selector {
    fn parse(text: &str) -> Result<Self, Stop> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        if (has("and") && has("or")) || has("exc") || has("except") || (has("not") && words.len() > 2) {
            return Err(unknown(text));
        }
        for (word, make) in [("and", Self::And as fn(Vec<Self>) -> Self), ("or", Self::Or)] {
            if has(word) {
                let parts = words.split(|found| *found == word);
                return Ok(make(parts.map(|part| Self::atom(&part.concat(), text)).collect::<Result<_, _>>()?));
            }
        }
        match words.as_slice() {
            ["not", rest] => Ok(Self::Not(Box::new(Self::atom(rest, text)?))),
            words => Self::atom(&words.concat(), text),
        }
    }

    fn atom(text: &str, whole: &str) -> Result<Self, Stop> {
        let direction = |name: &str| {
            Ok(match name {
                "X" => Vec3::x(),
                "Y" => Vec3::y(),
                "Z" => Vec3::z(),
                "XY" => Vec3::new(1.0, 1.0, 0.0),
                "YZ" => Vec3::new(0.0, 1.0, 1.0),
                "XZ" => Vec3::new(1.0, 0.0, 1.0),
                _ => return Err(unknown(whole)),
            })
        };
        let Some(first) = text.chars().next() else { return Err(unknown(whole)) };
        let rest = &text[first.len_utf8()..];
        Ok(match first {
            '>' | '<' => {
                let (name, index) = match rest.split_once('[') {
                    None => (rest, None),
                    Some((name, index)) => {
                        let index = index.strip_suffix(']').and_then(|index| index.parse().ok());
                        (name, Some(index.ok_or_else(|| unknown(whole))?))
                    }
                };
                Self::Extreme { direction: direction(name)?, farthest: first == '>', index }
            }
            '|' => Self::Parallel(direction(rest)?),
            '#' => Self::Perpendicular(direction(rest)?),
            '+' => Self::Along(direction(rest)?),
            '-' => Self::Along(-direction(rest)?),
            '%' => Self::Kind(rest.to_ascii_uppercase()),
            _ => Self::Along(direction(text)?),
        })
    }

    /// Returns which of the elements in `among` are picked. The numbers refer to `all`.
    fn pick(&self, all: &[&Element], among: &[usize], are_faces: bool) -> Result<Vec<usize>, Stop> {
        let filtered = |test: &dyn Fn(Vec3) -> Result<bool, Stop>| {
            let mut found = Vec::new();
            for &index in among {
                if let Some(direction) = all[index].direction
                    && test(direction)?
                {
                    found.push(index);
                }
            }
            Ok(found)
        };
        // CadQuery's tolerance is 1e-4.
        let is_small = |value: f64| {
            if (1e-6..1e-2).contains(&value) { Err(Stop::decline("selector", "nearly so")) } else { Ok(value < 1e-4) }
        };
        match self {
            Self::Parallel(axis) => filtered(&|direction| is_small(axis.cross(&direction).norm())),
            Self::Perpendicular(axis) => filtered(&|direction| is_small((axis.angle(&direction) - PI / 2.0).abs())),
            Self::Along(_) if !are_faces => Err(Stop::decline("selector", "which way an edge runs")),
            Self::Along(axis) => filtered(&|direction| is_small(axis.angle(&direction))),
            Self::Kind(kind) => {
                const KNOWN: [&str; 6] = ["PLANE", "CYLINDER", "CONE", "SPHERE", "LINE", "CIRCLE"];
                if !KNOWN.contains(&kind.as_str()) {
                    return Err(unknown(kind));
                }
                Ok(among.iter().copied().filter(|index| all[*index].kind == kind).collect())
            }
            Self::Extreme { direction, farthest, index: None } => {
                let groups = groups(all, among, *direction, None)?;
                let group = if *farthest { groups.last() } else { groups.first() };
                group.cloned().ok_or_else(|| Stop::decline("selector", "of nothing"))
            }
            Self::Extreme { direction, farthest, index: Some(index) } => {
                let among = Self::Parallel(*direction).pick(all, among, are_faces)?;
                let mut groups = groups(all, &among, *direction, Some(*index))?;
                if !farthest {
                    groups.reverse();
                }
                let count = groups.len() as i64;
                let at = if *index < 0 { index + count } else { *index };
                let group = usize::try_from(at).ok().and_then(|at| groups.get(at)).cloned();
                group.ok_or_else(|| Stop::raise("IndexError", "Attempted to access index of a list"))
            }
            Self::Not(inner) => {
                let without = inner.pick(all, among, are_faces)?;
                Ok(among.iter().copied().filter(|index| !without.contains(index)).collect())
            }
            Self::And(parts) => {
                let picked: Vec<Vec<usize>> =
                    parts.iter().map(|part| part.pick(all, among, are_faces)).collect::<Result<_, _>>()?;
                Ok(among.iter().copied().filter(|index| picked.iter().all(|found| found.contains(index))).collect())
            }
            Self::Or(parts) => {
                let picked: Vec<Vec<usize>> =
                    parts.iter().map(|part| part.pick(all, among, are_faces)).collect::<Result<_, _>>()?;
                Ok(among.iter().copied().filter(|index| picked.iter().any(|found| found.contains(index))).collect())
            }
        }
    }
}

/// Groups elements by the position of their centres along a direction, in ascending order. Centres
/// within 1e-4 form one group.
fn groups(all: &[&Element], among: &[usize], direction: Vec3, index: Option<i64>) -> Result<Vec<Vec<usize>>, Stop> {
    let mut keys: Vec<(f64, usize)> = among.iter().map(|&index| (all[index].center.dot(&direction), index)).collect();
    if keys.is_empty() {
        return Err(Stop::raise("ValueError", "Can not return the Nth element of an empty list"));
    }
    keys.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Only the circle on which a seam lies is known. The seam must clearly be neither first nor
    // last.
    let ends = |sign: f64| {
        let known = keys.iter().filter(|(_, index)| all[*index].spread == 0.0).map(|(key, _)| sign * key);
        known.fold(f64::NEG_INFINITY, f64::max)
    };
    let (first, last) = (-ends(-1.0), ends(1.0));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut before = f64::NEG_INFINITY;
    for (key, element) in keys {
        let reach = match all[element].direction {
            Some(axis) => all[element].spread * (direction - axis * direction.dot(&axis)).norm(),
            None => all[element].spread,
        };
        if reach > 1e-9 {
            if index.is_some() || key + reach > last - 1e-3 || key - reach < first + 1e-3 {
                return Err(Stop::decline("selector", "where a seam lies"));
            }
            continue;
        }
        let step = key - before;
        if (1e-8..1e-3).contains(&step) {
            return Err(Stop::decline("selector", "centres nearly as far"));
        }
        match groups.last_mut() {
            Some(group) if step < 1e-8 => group.push(element),
            _ => groups.push(vec![element]),
        }
        before = key;
    }
    Ok(groups)
}

/// Returns which elements in `among` a selector picks; without a selector, all of them.
pub fn select(all: &[&Element], among: &[usize], selector: Option<&str>, are_faces: bool) -> Result<Vec<usize>, Stop> {
    match selector {
        None => Ok(among.to_vec()),
        Some(text) => Selector::parse(text)?.pick(all, among, are_faces),
    }
}

/// Returns points as elements, for selectors of vertices.
pub fn points(at: &[Vec3]) -> Vec<Element> {
    at.iter().map(|at| Element { center: *at, spread: 0.0, direction: None, kind: "POINT" }).collect()
}
