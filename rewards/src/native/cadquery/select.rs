//! `faces`, `edges` and `vertices`, and the operations on what they select.

use std::rc::Rc;

use super::blend::{self, Blend};
use super::features;
use super::methods::Bound;
use super::shapes::{Body, Item, SelectedFaces};
use super::topology::{Element, Topology, points, select};
use super::workplane::Workplane;
use super::{late_number, shell};
use crate::csg::Vec3;
use crate::native::certainty;
use crate::native::python::{Stop, Value};
use crate::native::wires::SpaceEdge;

/// Returns the objects to search (those of a tag, or those on the stack) and the selector.
fn searched(wp: &Rc<Workplane>, bound: &Bound) -> Result<(Vec<Item>, Option<String>), Stop> {
    let selector = match bound.get(0) {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()).filter(|text| !text.is_empty()),
        Some(other) => return Err(Stop::decline("selector not text", other.class_name())),
    };
    let items = match bound.get(1) {
        None | Some(Value::None) => wp.objects.borrow().clone(),
        Some(Value::Str(name)) if name.is_empty() => wp.objects.borrow().clone(),
        Some(Value::Str(name)) => wp.tagged(name)?.objects,
        Some(other) => return Err(Stop::decline("tag not text", other.class_name())),
    };
    Ok((items, selector))
}

/// Returns the faces or edges among `items` if all belong to one body.
fn pieces<'a>(
    items: &'a [Item],
    piece: impl Fn(&'a Item) -> Option<(&'a Rc<Topology>, usize)>,
) -> Option<(Rc<Topology>, Vec<usize>)> {
    let found: Vec<(&Rc<Topology>, usize)> = items.iter().map(piece).collect::<Option<_>>()?;
    let (first, _) = *found.first()?;
    found.iter().all(|(other, _)| Rc::ptr_eq(first, other)).then(|| {
        let numbers = found.iter().map(|(_, number)| *number).collect();
        (Rc::clone(first), numbers)
    })
}

fn face_pieces(items: &[Item]) -> Option<(Rc<Topology>, Vec<usize>)> {
    pieces(items, |item| if let Item::Face(topology, face) = item { Some((topology, *face)) } else { None })
}

fn edge_pieces(items: &[Item]) -> Option<(Rc<Topology>, Vec<usize>)> {
    pieces(items, |item| if let Item::BodyEdge(topology, edge) = item { Some((topology, *edge)) } else { None })
}

fn only_body(items: &[Item]) -> Result<Rc<Body>, Stop> {
    match items {
        [Item::Body(body)] if body.holds_solid() => Ok(Rc::clone(body)),
        _ => Err(Stop::decline("selection among several objects", "")),
    }
}

fn listed(elements: &[Element]) -> Vec<&Element> {
    elements.iter().collect()
}

/// `faces`: returns the selected faces of the objects on the stack.
pub fn faces(wp: &Rc<Workplane>, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let (items, selector) = searched(wp, bound)?;
    let found = match face_pieces(&items) {
        Some(found) => Some(found),
        None => Topology::of(&only_body(&items)?)?.map(|topology| {
            let all = (0..topology.faces.len()).collect();
            (topology, all)
        }),
    };
    if let Some((topology, among)) = found {
        let picked = select(&listed(&topology.faces), &among, selector.as_deref(), true)?;
        return Ok(wp.with(picked.into_iter().map(|face| Item::Face(Rc::clone(&topology), face)).collect()));
    }
    // If a body ends in a plane face across the axis, the centre of that face is farther out than
    // that of any other face.
    let (sign, axis) = match selector.as_deref().unwrap_or_default() {
        ">X" => (1.0, 0),
        "<X" => (-1.0, 0),
        ">Y" => (1.0, 1),
        "<Y" => (-1.0, 1),
        ">Z" => (1.0, 2),
        "<Z" => (-1.0, 2),
        other => return Err(Stop::decline("face selector", other)),
    };
    let body = only_body(&items)?;
    let Some(tree) = body.shape()? else { return Err(Stop::decline("faces of nothing", "")) };
    let normal = Vec3::ith(axis, sign);
    match certainty::plane_end(tree, normal) {
        Some(offset) => Ok(wp.with(vec![Item::Faces(Rc::new(SelectedFaces::Plane { normal, offset }))])),
        None => Err(Stop::decline("face selector", "no plane face ends the body there")),
    }
}

/// Edges of a body, by their numbers in its topology.
type BodyEdges = (Rc<Topology>, Vec<usize>);

/// Returns the edges of the items if all belong to one body.
fn edges_of(items: &[Item]) -> Result<Option<BodyEdges>, Stop> {
    if let Some(found) = edge_pieces(items) {
        return Ok(Some(found));
    }
    if let Some((topology, faces)) = face_pieces(items) {
        let edges = topology.edges_of(&faces);
        return Ok(Some((topology, edges)));
    }
    Ok(Topology::of(&only_body(items)?)?.map(|topology| {
        let all = (0..topology.edges.len()).collect();
        (topology, all)
    }))
}

/// `edges`: returns the selected edges of the objects on the stack.
pub fn edges(wp: &Rc<Workplane>, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let (items, selector) = searched(wp, bound)?;
    if let Some((topology, among)) = edges_of(&items)? {
        let picked = select(&listed(&topology.edges), &among, selector.as_deref(), false)?;
        return Ok(wp.with(picked.into_iter().map(|edge| Item::BodyEdge(Rc::clone(&topology), edge)).collect()));
    }
    let axis = match selector.as_deref() {
        Some("|X") => Vec3::x(),
        Some("|Y") => Vec3::y(),
        Some("|Z") => Vec3::z(),
        other => return Err(Stop::decline("edge selector", other.unwrap_or("all"))),
    };
    Ok(wp.with(vec![Item::Uprights(only_body(&items)?, axis)]))
}

/// `vertices` of prisms and of outlines made of lines. Programs place holes at the vertices of a
/// construction rectangle.
pub fn vertices(wp: &Rc<Workplane>, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let (items, selector) = searched(wp, bound)?;
    let are_wires = items.iter().all(|item| matches!(item, Item::Wire(_)));
    let found = if are_wires {
        let mut found = Vec::new();
        for item in &items {
            let Item::Wire(wire) = item else { continue };
            for edge in &wire.edges {
                match edge {
                    SpaceEdge::Line { from, .. } => found.push(*from),
                    _ => return Err(Stop::decline("vertices of a curve", "")),
                }
            }
        }
        found
    } else {
        let (topology, edges) = edges_of(&items)?.ok_or_else(|| Stop::decline("vertices of a shape", ""))?;
        topology.vertices_of(&edges)?
    };
    let elements = points(&found);
    let all: Vec<usize> = (0..found.len()).collect();
    let picked = select(&listed(&elements), &all, selector.as_deref(), false)?;
    // The order of a wire's vertices is known only without a selector.
    let is_known = are_wires && selector.is_none() || picked.len() == 1;
    let item = |at: usize| if is_known { Item::Vertex(found[at]) } else { Item::Corner(found[at]) };
    Ok(wp.with(picked.into_iter().map(item).collect()))
}

/// `fillet` and `chamfer`: blends the edges on the stack, or the edges of the faces on the stack.
/// The body is found in the chain.
pub fn blended(wp: &Rc<Workplane>, shape: Blend) -> Result<Rc<Workplane>, Stop> {
    let body = features::find_solid(wp)?;
    let items = wp.objects.borrow().clone();
    if let [Item::Uprights(owner, axis)] = items.as_slice() {
        let tree = owned(owner, &body)?;
        return Ok(wp.with(vec![Item::Body(blend::blend_uprights(tree, *axis, shape)?)]));
    }
    if items.is_empty() || items.iter().all(|item| matches!(item, Item::Point(_))) {
        // The stack holds nothing that has edges.
        return Err(Stop::raise("ValueError", "Fillets requires that edges be selected"));
    }
    let found = edges_of(&items)?;
    let Some((topology, edges)) = found else { return Err(Stop::decline("edges of a body", "all")) };
    owned(&topology.body, &body)?;
    if edges.is_empty() {
        return Err(Stop::raise("ValueError", "Fillets requires that edges be selected"));
    }
    Ok(wp.with(vec![Item::Body(blend::blend(&topology, &edges, shape)?)]))
}

/// Returns the shape of the current body if the selection belongs to it. Declines otherwise.
fn owned<'a>(owner: &'a Rc<Body>, body: &Rc<Body>) -> Result<&'a crate::csg::CsgSolid, Stop> {
    if !Rc::ptr_eq(owner, body) || owner.tangled {
        return Err(Stop::decline("edges of another body", ""));
    }
    owner.shape()?.ok_or_else(|| Stop::decline("edges of nothing", ""))
}

/// Reads the size of `chamfer`: one length for both faces.
pub fn chamfer_length(bound: &Bound) -> Result<f64, Stop> {
    let length = late_number(bound.value(0)?)?;
    match bound.get(1) {
        None | Some(Value::None) => Ok(length),
        Some(other) if late_number(other)? == length => Ok(length),
        Some(_) => Err(Stop::decline("chamfer of two lengths", "")),
    }
}

/// `shell`: removes the faces on the stack and leaves walls of a thickness.
pub fn shelled(wp: &Rc<Workplane>, thickness: f64) -> Result<Rc<Workplane>, Stop> {
    let body = features::find_solid(wp)?;
    let items = wp.objects.borrow().clone();
    let (topology, faces) = match face_pieces(&items) {
        Some(found) => found,
        None => match Topology::of(&only_body(&items)?)? {
            Some(topology) => (topology, Vec::new()),
            None => return Err(Stop::decline("shell of a body", "not one prism")),
        },
    };
    owned(&topology.body, &body)?;
    Ok(wp.with(vec![Item::Body(shell::shell(&topology, &faces, thickness)?)]))
}
