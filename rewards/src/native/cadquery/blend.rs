//! Fillets and chamfers whose result consists of prisms or cones.
//!
//! An edge along the axis of a prism stands over a corner of the outline. A fillet of that edge is
//! an arc in the outline, and a chamfer is a line. Around the cap of a block, two prisms meet in a
//! mitre. Around the cap of a cylinder, a chamfer is a cone.

use std::rc::Rc;

use super::shapes::Body;
use super::topology::{EdgePlace, Topology, carried, gap, heights, wires};
use crate::csg::{CsgSolid, Edge, Extrusion, Operation, Plane, Primitive, Region, Revolution, Vec2, Vec3, Wire};
use crate::native::python::Stop;
use crate::native::wires::{CLEARANCE, regions};

/// What replaces an edge.
#[derive(Debug, Clone, Copy)]
pub enum Blend {
    /// A round with this radius.
    Fillet(f64),
    /// A bevel with this length along both faces.
    Chamfer(f64),
}

impl Blend {
    fn size(self) -> f64 {
        match self {
            Self::Fillet(size) | Self::Chamfer(size) => size,
        }
    }

    /// Checks the size. A size that is not positive raises, once edges are selected.
    fn check(self) -> Result<(), Stop> {
        match self.size() {
            size if size <= 0.0 => Err(fails()),
            size if size < 1e-4 => Err(Stop::decline("fillet or chamfer too small", size.to_string())),
            _ => Ok(()),
        }
    }
}

/// The exception that the kernel raises if faces are too small, whatever the cause.
fn fails() -> Stop {
    Stop::raise("StdFail_NotDone", "BRep_API: command not done")
}

/// The exception that the kernel raises if the faces at all selected edges join smoothly.
fn no_edges() -> Stop {
    Stop::raise("Standard_Failure", "There are no suitable edges for chamfer or fillet")
}

fn uncertain(detail: &str) -> Stop {
    Stop::decline("fillet or chamfer", detail)
}

/// Blends edges of a body that is a single prism. `edges` are numbers in the topology. Raises what
/// the kernel raises, and declines a blend whose result is uncertain.
pub fn blend(topology: &Topology, edges: &[usize], blend: Blend) -> Result<Rc<Body>, Stop> {
    blend.check()?;
    let places: Vec<EdgePlace> = edges.iter().map(|edge| topology.places[*edge]).collect();
    let is_cap = |place: &EdgePlace| matches!(place, EdgePlace::Cap { .. });
    let prism = &topology.prism;
    if !places.iter().any(is_cap) {
        let corners: Vec<(usize, usize)> = places
            .iter()
            .filter_map(|place| if let EdgePlace::Upright { wire, edge } = place { Some((*wire, *edge)) } else { None })
            .collect();
        let is_chosen = |wire: usize, edge: usize| corners.contains(&(wire, edge));
        let (region, count) = blended(&prism.region, &is_chosen, blend)?;
        return if count == 0 { Err(no_edges()) } else { Ok(Body::new(Extrusion { region, ..prism.clone() })) };
    }
    if let Some(block) = Block::of(prism) {
        let centers: Vec<Vec3> = edges.iter().map(|edge| topology.edges[*edge].center).collect();
        return block.blended(&centers, blend).map(Body::new);
    }
    match blend {
        Blend::Chamfer(length) => chamfered_circles(prism, &places, length).map(Body::new),
        Blend::Fillet(_) => Err(uncertain("around a cap")),
    }
}

/// Returns an outline with the chosen corners blended, and the number of blended corners. Edges
/// that join smoothly have no corner.
fn blended(region: &Region, is_chosen: &dyn Fn(usize, usize) -> bool, blend: Blend) -> Result<(Region, usize), Stop> {
    let mut count = 0;
    let mut made = Vec::new();
    for (number, wire) in wires(region).enumerate() {
        let (wire, corners) = blended_wire(wire, &|edge| is_chosen(number, edge), blend)?;
        count += corners;
        made.push(wire);
    }
    if count == 0 {
        return Ok((region.clone(), 0));
    }
    let holes = made.len() - 1;
    match regions(made)? {
        (found, false) if found.len() == 1 && found[0].holes().len() == holes => Ok((found[0].clone(), count)),
        _ => Err(uncertain("outline that is cut up")),
    }
}

/// The replacement of a corner: the new end of the edge before it, the new start of the edge after
/// it, and the edge that joins them.
struct Corner {
    end: Vec2,
    start: Vec2,
    bridge: Edge,
}

fn blended_wire(wire: &Wire, is_chosen: &dyn Fn(usize) -> bool, blend: Blend) -> Result<(Wire, usize), Stop> {
    let edges = wire.edges();
    let count = edges.len();
    if count < 2 {
        return Ok((wire.clone(), 0));
    }
    let mut corners: Vec<Option<Corner>> = Vec::with_capacity(count);
    for index in 0..count {
        let chosen = is_chosen(index);
        corners.push(if chosen { corner(&edges[index], &edges[(index + 1) % count], blend)? } else { None });
    }
    let mut made = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        let before = corners[(index + count - 1) % count].as_ref().map(|corner| corner.start);
        let here = corners[index].as_ref();
        let Some((from, to)) = edge.ends() else { return Err(uncertain("a circle among edges")) };
        let (start, end) = (before.unwrap_or(from), here.map_or(to, |corner| corner.end));
        let rest = along(edge, end) - along(edge, start);
        let length = along(edge, to);
        if before.is_some() || here.is_some() {
            if rest < 1e-12 * length && is_sharp(edges) {
                // The kernel makes something of some outlines with acute corners all the same.
                return Err(uncertain("nothing is left of a face beside an acute corner"));
            }
            if rest < 1e-12 * length {
                return Err(fails());
            }
            if rest < 1e-4 * length {
                return Err(uncertain("little is left of a face"));
            }
        }
        made.push(match *edge {
            Edge::Arc { center, radius, counter_clockwise, .. } => {
                Edge::Arc { from: start, to: end, center, radius, counter_clockwise }
            }
            _ => Edge::Line { from: start, to: end },
        });
        made.extend(here.map(|corner| corner.bridge.clone()));
    }
    let blends = corners.iter().flatten().count();
    let wire = Wire::new(made).map_err(|error| uncertain(&error.to_string()))?;
    Ok((wire, blends))
}

/// Whether two neighbouring lines of a wire meet at less than a right angle.
fn is_sharp(edges: &[Edge]) -> bool {
    let direction = |edge: &Edge| match edge {
        Edge::Line { from, to } => Some((to - from).normalize()),
        _ => None,
    };
    let next = edges.iter().cycle().skip(1);
    edges
        .iter()
        .zip(next)
        .any(|(a, b)| direction(a).zip(direction(b)).is_some_and(|(along, onward)| along.dot(&onward) < -1e-9))
}

/// Returns the distance of a point along an edge. It is negative before the start of the edge.
fn along(edge: &Edge, point: Vec2) -> f64 {
    match *edge {
        Edge::Line { from, to } => (to - from).normalize().dot(&(point - from)),
        Edge::Arc { from, center, radius, counter_clockwise, .. } => {
            let (a, b) = (from - center, point - center);
            let turn = a.perp(&b).atan2(a.dot(&b)) * if counter_clockwise { 1.0 } else { -1.0 };
            let sweep = edge.sweep();
            // The turn nearest to the middle of the arc.
            let turn = turn + std::f64::consts::TAU * ((sweep / 2.0 - turn) / std::f64::consts::TAU).round();
            turn * radius
        }
        Edge::Circle { .. } => 0.0,
    }
}

/// Returns the direction of travel at an end of an edge.
fn tangent(edge: &Edge, at: Vec2) -> Vec2 {
    match *edge {
        Edge::Arc { center, counter_clockwise, .. } => {
            let out = (at - center).normalize();
            let left = Vec2::new(-out.y, out.x);
            if counter_clockwise { left } else { -left }
        }
        Edge::Line { from, to } => (to - from).normalize(),
        Edge::Circle { .. } => Vec2::zeros(),
    }
}

/// The unbounded curve at a distance to the left of an edge, or to its right if the distance is
/// negative.
enum Offset {
    Line { point: Vec2, along: Vec2 },
    Circle { center: Vec2, radius: f64 },
}

impl Offset {
    fn of(edge: &Edge, distance: f64) -> Self {
        match *edge {
            Edge::Arc { center, radius, counter_clockwise, .. } => {
                Self::Circle { center, radius: if counter_clockwise { radius - distance } else { radius + distance } }
            }
            Edge::Circle { center, radius } => Self::Circle { center, radius: radius - distance },
            Edge::Line { from, to } => {
                let along = (to - from).normalize();
                Self::Line { point: from + Vec2::new(-along.y, along.x) * distance, along }
            }
        }
    }

    /// Returns the points at which two such curves meet.
    fn meet(&self, other: &Self) -> Vec<Vec2> {
        let roots = |foot: Vec2, along: Vec2, squared: f64| {
            if squared < 0.0 { vec![] } else { vec![foot + along * squared.sqrt(), foot - along * squared.sqrt()] }
        };
        match (self, other) {
            (Self::Line { point: p, along: u }, Self::Line { point: q, along: v }) => {
                vec![p + u * ((q - p).perp(v) / u.perp(v))]
            }
            (Self::Line { point, along }, Self::Circle { center, radius })
            | (Self::Circle { center, radius }, Self::Line { point, along }) => {
                let foot = point + along * along.dot(&(center - point));
                roots(foot, *along, radius * radius - (center - foot).norm_squared())
            }
            (Self::Circle { center: c, radius: r }, Self::Circle { center: d, radius: s }) => {
                let apart = (d - c).norm();
                if apart < 1e-9 {
                    return vec![];
                }
                let unit = (d - c) / apart;
                let foot = (apart * apart + r * r - s * s) / (2.0 * apart);
                roots(c + unit * foot, Vec2::new(-unit.y, unit.x), r * r - foot * foot)
            }
        }
    }
}

/// Returns the point nearest to `point` on the line or circle of an edge.
fn foot(edge: &Edge, point: Vec2) -> Vec2 {
    match *edge {
        Edge::Line { from, to } => {
            let along = (to - from).normalize();
            from + along * along.dot(&(point - from))
        }
        Edge::Arc { center, radius, .. } | Edge::Circle { center, radius } => {
            center + (point - center).normalize() * radius
        }
    }
}

/// Returns the blended corner between an edge and the next, or `None` if they join smoothly.
fn corner(a: &Edge, b: &Edge, blend: Blend) -> Result<Option<Corner>, Stop> {
    let Some((_, at)) = a.ends() else { return Ok(None) };
    let (before, after) = (tangent(a, at), tangent(b, at));
    let (sine, cosine) = (before.perp(&after), before.dot(&after));
    if sine.abs() < 1e-6 && cosine > 0.0 {
        return Ok(None);
    }
    if sine.abs() < 1e-2 {
        return Err(uncertain("edges at a small angle"));
    }
    let radius = match blend {
        Blend::Chamfer(length) => {
            if !matches!((a, b), (Edge::Line { .. }, Edge::Line { .. })) {
                return Err(uncertain("chamfer at an arc"));
            }
            let (end, start) = (at - before * length, at + after * length);
            return Ok(Some(Corner { end, start, bridge: Edge::Line { from: end, to: start } }));
        }
        Blend::Fillet(radius) => radius,
    };
    let side = sine.signum();
    let [one, other] = [a, b].map(|edge| Offset::of(edge, side * radius));
    let has_room = |offset: &Offset| !matches!(offset, Offset::Circle { radius, .. } if *radius < 1e-3);
    if !has_room(&one) || !has_room(&other) {
        return Err(uncertain("fillet wider than an arc"));
    }
    let nearest = one.meet(&other).into_iter().min_by(|p, q| (p - at).norm().total_cmp(&(q - at).norm()));
    let Some(center) = nearest else { return Err(uncertain("fillet that does not fit")) };
    let (end, start) = (foot(a, center), foot(b, center));
    let bridge = Edge::Arc { from: end, to: start, center, radius, counter_clockwise: side > 0.0 };
    if bridge.sweep() > std::f64::consts::PI {
        return Err(uncertain("fillet that does not fit"));
    }
    Ok(Some(Corner { end, start, bridge }))
}

/// A rectangular block.
pub struct Block {
    center: Vec3,
    axes: [Vec3; 3],
    half: [f64; 3],
}

impl Block {
    /// Returns the block that a prism over a rectangle is, or `None` for any other prism.
    pub fn of(prism: &Extrusion) -> Option<Self> {
        let Extrusion { plane, region, low, high } = prism;
        let lines: Vec<(Vec2, Vec2)> =
            region.edges().filter(|edge| edge.sweep() == 0.0).filter_map(Edge::ends).collect();
        let [(a, b), (_, c), (_, d), _] = *lines.as_slice() else { return None };
        let (u, v) = (b - a, c - b);
        let is_square = u.dot(&v).abs() < 1e-9 * u.norm() * v.norm() && (d - c + u).norm() < 1e-9 * u.norm();
        if region.edges().count() != 4 || !is_square {
            return None;
        }
        let direction = |flat: Vec2| plane.x * flat.x + plane.y * flat.y;
        Some(Self {
            center: plane.to_space((a + c) / 2.0, (low + high) / 2.0),
            axes: [direction(u.normalize()), direction(v.normalize()), plane.z],
            half: [u.norm() / 2.0, v.norm() / 2.0, (high - low) / 2.0],
        })
    }

    /// Returns the plane across an axis. The other two axes follow in cyclic order.
    fn plane(&self, axis: usize) -> Plane {
        let (x, y) = (self.axes[(axis + 1) % 3], self.axes[(axis + 2) % 3]);
        Plane { origin: self.center, x, y, z: x.cross(&y) }
    }

    /// Returns the block as a prism along an axis, with its faces moved inward by `inset` (low and
    /// high along each axis).
    pub fn along(&self, axis: usize, inset: [[f64; 2]; 3]) -> Result<Extrusion, Stop> {
        let plane = self.plane(axis);
        let bounds = |of: usize| [inset[of][0] - self.half[of], self.half[of] - inset[of][1]];
        let (x, y, z) = (bounds((axis + 1) % 3), bounds((axis + 2) % 3), bounds(axis));
        let corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])].map(|(x, y)| Vec2::new(x, y));
        let edges = (0..4).map(|i| Edge::Line { from: corners[i], to: corners[(i + 1) % 4] }).collect();
        let wire = Wire::new(edges).map_err(|error| uncertain(&error.to_string()))?;
        // The third axis may point against the plane's normal.
        let [low, high] = if plane.z.dot(&self.axes[axis]) > 0.0 { z } else { [-z[1], -z[0]] };
        Ok(Extrusion { plane, region: Region::new(wire, vec![]), low, high })
    }

    /// Returns whether any volume is left between faces moved inward by `inset`.
    pub fn has_room(&self, inset: [[f64; 2]; 3]) -> bool {
        (0..3).all(|axis| 2.0 * self.half[axis] - inset[axis][0] - inset[axis][1] > 1e-3 * self.half[axis])
    }

    /// Returns on which side of the block the centre of a face or an edge lies: -1, 0 or 1 along
    /// each axis.
    pub fn sides(&self, point: Vec3) -> [f64; 3] {
        [0, 1, 2].map(|axis| ((point - self.center).dot(&self.axes[axis]) / self.half[axis]).round())
    }

    /// Blends the edges with these centres, which run along one axis or along two. Where edges
    /// along two axes meet, the blends form mitres.
    fn blended(&self, centers: &[Vec3], blend: Blend) -> Result<CsgSolid, Stop> {
        let edges: Vec<[f64; 3]> = centers.iter().map(|center| self.sides(*center)).collect();
        let axis_of = |edge: &[f64; 3]| edge.iter().position(|side| *side == 0.0);
        let along = |axis: usize| edges.iter().filter(move |edge| axis_of(edge) == Some(axis));
        let axes: Vec<usize> = (0..3).filter(|axis| along(*axis).next().is_some()).collect();
        if axes.len() > 2 {
            return Err(uncertain("edges that meet in a corner"));
        }
        if let [first, second] = *axes.as_slice() {
            // Edges that cross without a common corner must keep clear of each other.
            let third = 3 - first - second;
            let meet = along(first).all(|a| along(second).all(|b| a[third] == b[third]));
            let least = self.half.iter().fold(f64::INFINITY, |least, half| least.min(*half));
            if !meet && blend.size() > 0.99 * least {
                return Err(uncertain("edges that nearly meet"));
            }
        }
        let mut made: Option<CsgSolid> = None;
        for axis in axes {
            let prism = self.along(axis, [[0.0; 2]; 3])?;
            let (x, y) = ((axis + 1) % 3, (axis + 2) % 3);
            let is_chosen = |_: usize, edge: usize| {
                let end = prism.region.outer().edges()[edge].ends().map_or(Vec2::zeros(), |(_, to)| to);
                along(axis).any(|chosen| chosen[x] * end.x > 0.0 && chosen[y] * end.y > 0.0)
            };
            let (region, _) = blended(&prism.region, &is_chosen, blend)?;
            let part = Extrusion { region, ..prism.clone() };
            made = Some(match made {
                None => part.into(),
                Some(before) => before.combine(Operation::Intersect, part),
            });
        }
        made.ok_or_else(|| uncertain("no edge"))
    }
}

/// Chamfers circles around the caps of a prism, which makes cones. Declines if any chosen edge is
/// not such a circle.
fn chamfered_circles(prism: &Extrusion, places: &[EdgePlace], length: f64) -> Result<CsgSolid, Stop> {
    let Extrusion { plane, region, low, high } = prism;
    let outlines: Vec<&Wire> = wires(region).collect();
    let chosen = |is_high: bool, number: usize| {
        let place = EdgePlace::Cap { high: is_high, wire: number, edge: 0 };
        if places.contains(&place) { length } else { 0.0 }
    };
    let circle = |number: usize| match outlines[number].edges() {
        [Edge::Circle { center, radius }] => Some((*center, *radius)),
        _ => None,
    };
    for place in places {
        match place {
            EdgePlace::Cap { wire, .. } if circle(*wire).is_some() => {}
            EdgePlace::Seam => {}
            _ => return Err(uncertain("around a cap")),
        }
    }
    if 2.0 * length > 0.999 * (high - low) {
        return Err(uncertain("chamfer higher than half of the body"));
    }
    // After the chamfers each cap must still have the same outlines.
    for is_high in [false, true] {
        let widened =
            outlines.iter().enumerate().map(|(number, wire)| match (chosen(is_high, number), circle(number)) {
                (wider, Some((center, radius))) if wider > 0.0 => {
                    let radius = if number == 0 { radius - wider } else { radius + wider };
                    if radius < 1e-3 * length { None } else { Wire::new(vec![Edge::Circle { center, radius }]).ok() }
                }
                _ => Some((*wire).clone()),
            });
        let Some(widened) = widened.collect::<Option<Vec<Wire>>>() else {
            return Err(uncertain("chamfer as wide as a circle"));
        };
        match regions(widened)? {
            (found, false) if found.len() == 1 && found[0].holes().len() == outlines.len() - 1 => {}
            _ => return Err(uncertain("chamfers that meet")),
        }
    }
    let is_chosen = |number: &usize| chosen(false, *number) > 0.0 || chosen(true, *number) > 0.0;
    let turned = |center: Vec2, corners: &[(f64, f64)]| {
        let sides = corners.windows(2).map(|pair| [pair[0], pair[1]].map(|(x, y)| Vec2::new(x, y))).collect();
        Revolution::whole(Plane { origin: plane.to_space(center, 0.0), ..plane.clone() }, sides)
    };
    // Radii and heights from the bottom up. At a chamfered cap the radius grows by `sign` times the
    // chamfer.
    let profile = |number: usize, radius: f64, sign: f64| {
        let [a, b] = [false, true].map(|is_high| chosen(is_high, number));
        let mut corners = vec![(0.0, *low), (radius + sign * a, *low)];
        corners
            .extend([(a > 0.0).then_some((radius, low + a)), (b > 0.0).then_some((radius, high - b))].iter().flatten());
        corners.extend([(radius + sign * b, *high), (0.0, *high)]);
        corners
    };
    let plain =
        (1..outlines.len()).filter(|number| !is_chosen(number)).map(|number| outlines[number].clone()).collect();
    let mut made: CsgSolid = match circle(0) {
        Some((center, radius)) if is_chosen(&0) => {
            let mut made = CsgSolid::from(turned(center, &profile(0, radius, -1.0)));
            for hole in plain_prisms(prism, plain) {
                made = made.combine(Operation::Cut, hole);
            }
            made
        }
        _ => Extrusion { region: Region::new(region.outer().clone(), plain), ..prism.clone() }.into(),
    };
    for number in (1..outlines.len()).filter(is_chosen) {
        if let Some((center, radius)) = circle(number) {
            made = made.combine(Operation::Cut, turned(center, &profile(number, radius, 1.0)));
        }
    }
    Ok(made)
}

/// Returns prisms with the height of `prism` over other outlines.
fn plain_prisms(prism: &Extrusion, outlines: Vec<Wire>) -> impl Iterator<Item = Extrusion> {
    outlines.into_iter().map(|outline| Extrusion { region: Region::new(outline, vec![]), ..prism.clone() })
}

/// Blends all edges of a body that run along an axis. Its leaves must keep clear of each other
/// except at their caps; other bodies are declined.
pub fn blend_uprights(tree: &CsgSolid, axis: Vec3, blend: Blend) -> Result<Rc<Body>, Stop> {
    blend.check()?;
    let leaves = tree.primitives();
    let is_upright = |leaf: &Primitive<'_>| match leaf {
        Primitive::Extrusion(prism) => prism.plane.z.cross(&axis).norm() < 1e-9,
        Primitive::Ball(_) | Primitive::Revolution(_) | Primitive::Polyhedron(_) => false,
    };
    let prisms: Vec<(usize, &Extrusion)> = leaves
        .iter()
        .enumerate()
        .filter(|(_, leaf)| is_upright(leaf))
        .filter_map(|(number, leaf)| if let Primitive::Extrusion(prism) = leaf { Some((number, *prism)) } else { None })
        .collect();
    let Some((_, first)) = prisms.first() else { return Err(uncertain("no prism along the edges")) };
    let base = first.plane.clone();
    check_others(tree, &leaves, axis, 4.0 * blend.size() + CLEARANCE, &is_upright)?;
    // Expresses all outlines in one plane.
    let flat: Vec<(f64, f64, Vec<Wire>)> = prisms
        .iter()
        .map(|(_, prism)| {
            let (low, high) = heights(prism, &base);
            let outlines = wires(&prism.region).map(|wire| carried(wire, &prism.plane, &base)).collect::<Option<_>>();
            outlines.map(|outlines| (low, high, outlines)).ok_or_else(|| uncertain("odd outline"))
        })
        .collect::<Result<_, Stop>>()?;
    let keep_clear = |one: &[Wire], other: &[Wire]| one.iter().all(|a| other.iter().all(|b| gap(a, b) > CLEARANCE));
    let in_touch = |i: usize, j: usize| flat[i].0 < flat[j].1 + CLEARANCE && flat[j].0 < flat[i].1 + CLEARANCE;
    for i in 0..flat.len() {
        for j in 0..i {
            if in_touch(i, j) && !keep_clear(&flat[i].2, &flat[j].2) {
                return Err(uncertain("faces that meet along the edges"));
            }
        }
    }
    let mut caster = tree.caster(base.z);
    let mut is_seen = |corner: Vec2, inward: Vec2| {
        let mut spans = |at: Vec2| -> Vec<(f64, f64)> {
            let spans = caster.spans(base.to_space(at, 0.0));
            spans.iter().map(|span| (span.enter.at, span.leave.at)).collect()
        };
        let (inside, outside) = (spans(corner + inward * 3e-7), spans(corner - inward * 3e-7));
        inside.len() != outside.len()
            || inside.iter().zip(&outside).any(|(a, b)| (a.0 - b.0).abs() > 1e-8 || (a.1 - b.1).abs() > 1e-8)
    };
    let mut count = 0;
    let mut made: Vec<Extrusion> = Vec::new();
    let mut outlines: Vec<Vec<Wire>> = Vec::new();
    for (number, (_, prism)) in prisms.iter().enumerate() {
        let mut seen: Vec<(usize, usize)> = Vec::new();
        for (wire_number, wire) in flat[number].2.iter().enumerate() {
            let edges = wire.edges();
            for (index, edge) in edges.iter().enumerate() {
                let Some((_, at)) = edge.ends() else { continue };
                let (before, after) = (tangent(edge, at), tangent(&edges[(index + 1) % edges.len()], at));
                let bisector = after - before;
                if bisector.norm() > 1e-5 && is_seen(at, bisector.normalize()) {
                    seen.push((wire_number, index));
                }
            }
        }
        let is_chosen = |wire: usize, edge: usize| seen.contains(&(wire, edge));
        let (region, corners) = blended(&prism.region, &is_chosen, blend)?;
        count += corners;
        let carried: Option<Vec<Wire>> = wires(&region).map(|wire| carried(wire, &prism.plane, &base)).collect();
        outlines.push(carried.ok_or_else(|| uncertain("odd outline"))?);
        made.push(Extrusion { region, ..(*prism).clone() });
    }
    if count == 0 {
        return Err(uncertain("no edge is seen"));
    }
    // Nothing may occupy the space of the former corners.
    for i in 0..flat.len() {
        for j in 0..flat.len() {
            let is_clear = || {
                keep_clear(&outlines[i], &flat[j].2)
                    && keep_clear(&outlines[i], &outlines[j])
                    && flat[j].2.iter().all(|other| {
                        let at = other.edges()[0].ends().map_or_else(|| other.edges()[0].centroid(), |(from, _)| from);
                        let is_in = |wires: &[Wire]| wires.iter().filter(|wire| wire.contains(at)).count() % 2;
                        is_in(&flat[i].2) == is_in(&outlines[i])
                    })
            };
            if i != j && in_touch(i, j) && !is_clear() {
                return Err(uncertain("something where a corner was"));
            }
        }
    }
    let next = std::cell::Cell::new(0);
    let mut made = made.into_iter().map(CsgSolid::from).map(Some).collect::<Vec<_>>();
    let replaced: Vec<(usize, CsgSolid)> =
        prisms.iter().zip(&mut made).filter_map(|((number, _), solid)| Some((*number, solid.take()?))).collect();
    let tree = tree.mapped(&|leaf| {
        let number = next.replace(next.get() + 1);
        match replaced.iter().find(|(known, _)| *known == number) {
            Some((_, solid)) => solid.clone(),
            None => copied(leaf),
        }
    });
    Ok(Body::new(tree))
}

fn copied(leaf: Primitive<'_>) -> CsgSolid {
    match leaf {
        Primitive::Extrusion(prism) => prism.clone().into(),
        Primitive::Ball(ball) => (*ball).into(),
        Primitive::Revolution(turned) => turned.clone().into(),
        Primitive::Polyhedron(polyhedron) => polyhedron.clone().into(),
    }
}

/// Checks the leaves that do not stand along the axis. They must add no edges along it and must
/// keep clear of the existing ones. Allowed are cylinders across the axis that end outside of the
/// whole body and keep clear of the corners.
fn check_others(
    tree: &CsgSolid,
    leaves: &[Primitive<'_>],
    axis: Vec3,
    margin: f64,
    is_upright: &dyn Fn(&Primitive<'_>) -> bool,
) -> Result<(), Stop> {
    let Some(all) = tree.bounds() else { return Err(uncertain("nothing")) };
    for leaf in leaves.iter().filter(|leaf| !is_upright(leaf)) {
        let Primitive::Extrusion(prism) = leaf else { return Err(uncertain("a turned body beside the edges")) };
        let is_round = prism.region.edges().all(|edge| matches!(edge, Edge::Circle { .. }));
        let is_outside = |height: f64, sign: f64| {
            let normal = prism.plane.z * sign;
            let far = Vec3::from_fn(|axis, _| if normal[axis] > 0.0 { all.max[axis] } else { all.min[axis] });
            normal.dot(&prism.plane.origin) + sign * height > normal.dot(&far) - 1e-9
        };
        if !is_round
            || prism.plane.z.dot(&axis).abs() > 1e-9
            || !is_outside(prism.high, 1.0)
            || !is_outside(prism.low, -1.0)
        {
            return Err(uncertain("a body across the edges"));
        }
        let reach = leaf.bounds();
        let meets_corner = leaves.iter().filter(|leaf| is_upright(leaf)).any(|other| {
            let Primitive::Extrusion(upright) = other else { return false };
            upright.region.edges().filter_map(Edge::ends).any(|(_, at)| {
                let ends = [upright.low, upright.high].map(|height| upright.plane.to_space(at, height));
                (0..3).all(|axis| {
                    let (low, high) = (ends[0][axis].min(ends[1][axis]), ends[0][axis].max(ends[1][axis]));
                    low < reach.max[axis] + margin && high > reach.min[axis] - margin
                })
            })
        });
        if meets_corner {
            return Err(uncertain("a body across a corner"));
        }
    }
    Ok(())
}
