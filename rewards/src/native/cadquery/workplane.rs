//! `Workplane`: its contents and its construction.

use std::cell::RefCell;
use std::rc::Rc;

use super::geometry::{PlaneObject, VectorObject, named_plane, vector};
use super::method;
use super::shapes::{Body, Item, ShapeObject};
use super::signatures::{self, signature};
use crate::csg::{Plane, Vec3};
use crate::native::python::{Arguments, BinaryOperator, Object, Stop, Value};
use crate::native::wires::{SpaceEdge, SpaceWire};

/// `cq.Workplane`. Its context is shared by one chain: pending wires and edges belong to the chain,
/// not to the object that drew them.
#[derive(Debug)]
pub struct Workplane {
    pub plane: RefCell<Plane>,
    pub objects: RefCell<Vec<Item>>,
    pub parent: Option<Rc<Workplane>>,
    pub context: Rc<RefCell<Context>>,
}

/// `CQContext`.
#[derive(Debug, Default)]
pub struct Context {
    pub pending_wires: Vec<Rc<SpaceWire>>,
    pub pending_edges: Vec<SpaceEdge>,
    /// The start of the current outline, in the coordinates of the plane in which it was drawn.
    pub first_point: Option<Vec3>,
    pub tags: Vec<(String, Tagged)>,
}

/// The workplane that a tag returns. It is a copy, because a context that held its own workplanes
/// would never be freed.
#[derive(Debug, Clone)]
pub struct Tagged {
    pub plane: Plane,
    pub objects: Vec<Item>,
    /// The address of the tagged workplane. It serves only to compare identity and must not be
    /// dereferenced.
    address: usize,
}

/// The other names that a `Workplane` has. They exist in CadQuery but are not implemented here.
const OTHERS: &[&str] = &[
    "_addPendingEdge",
    "_addPendingWire",
    "_collectProperty",
    "_combineWithBase",
    "_consolidateWires",
    "_cutFromBase",
    "_extrude",
    "_filter",
    "_findFromEdge",
    "_findFromPoint",
    "_findType",
    "_fuseWithBase",
    "_getFaces",
    "_getFacesVertices",
    "_getTagged",
    "_locs",
    "_mergeTags",
    "_repr_javascript_",
    "_revolve",
    "_selectObjects",
    "_sweep",
    "_tag",
    "_toVectors",
    "all",
    "ancestors",
    "apply",
    "bezier",
    "combine",
    "compounds",
    "consolidateWires",
    "ctx",
    "cutEach",
    "each",
    "eachpoint",
    "ellipse",
    "ellipseArc",
    "export",
    "exportSvg",
    "filter",
    "findSolid",
    "interpPlate",
    "invoke",
    "item",
    "largestDimension",
    "loft",
    "map",
    "mirrorX",
    "mirrorY",
    "newObject",
    "objects",
    "offset2D",
    "parametricCurve",
    "parametricSurface",
    "parent",
    "placeSketch",
    "plane",
    "rotateAboutCenter",
    "section",
    "shells",
    "siblings",
    "solids",
    "sort",
    "spline",
    "splineApprox",
    "split",
    "sweep",
    "tangentArcPoint",
    "text",
    "toOCC",
    "toPending",
];

/// The rest of [`OTHERS`].
const MORE: &[&str] = &["toSvg", "twistExtrude", "vals", "wedge", "wire", "wires"];

/// `Workplane(inPlane="XY", origin=(0, 0, 0), obj=None)`.
pub fn construct(arguments: Arguments) -> Result<Value, Stop> {
    let bound = arguments.bind("Workplane.__init__", &signatures::WORKPLANE)?;
    let [place, origin, object] = bound.as_slice() else { return Err(Stop::decline("Workplane", "")) };
    if object.as_ref().is_some_and(|value| !matches!(value, Value::None)) {
        return Err(Stop::decline("Workplane with an object", ""));
    }
    let origin = origin.as_ref().map(vector).transpose()?.unwrap_or_else(Vec3::zeros);
    let mut objects = Vec::new();
    let plane = match place {
        None => named_plane("XY", origin)?,
        Some(Value::Str(name)) => named_plane(name, origin)?,
        Some(value) => {
            if let Some(PlaneObject(plane)) = value.object::<PlaneObject>() {
                plane.clone()
            } else if let Some(VectorObject(point)) = value.object::<VectorObject>() {
                objects.push(Item::Point(*point));
                named_plane("XY", origin)?
            } else if let Some(ShapeObject(item)) = value.object::<ShapeObject>() {
                objects.push(item.clone());
                named_plane("XY", origin)?
            } else if matches!(value, Value::Object(_)) {
                return Err(Stop::decline("Workplane of an odd object", value.class_name()));
            } else {
                let message = format!("Provided value {} is not a valid work plane", value.str()?);
                return Err(Stop::raise("ValueError", message));
            }
        }
    };
    Ok(Value::Object(Rc::new(Workplane {
        plane: RefCell::new(plane),
        objects: RefCell::new(objects),
        parent: None,
        context: Rc::default(),
    })))
}

/// Returns an `Rc` to the workplane inside of an object, or `None` for any other object.
pub fn shared(this: &Rc<dyn Object>) -> Option<Rc<Workplane>> {
    let this: Rc<dyn std::any::Any> = Rc::clone(this) as Rc<dyn std::any::Any>;
    this.downcast::<Workplane>().ok()
}

impl Workplane {
    /// `newObject`: returns a child with the same plane and chain, and other objects.
    pub fn with(self: &Rc<Self>, objects: Vec<Item>) -> Rc<Self> {
        Rc::new(Self {
            plane: RefCell::new(self.plane.borrow().clone()),
            objects: RefCell::new(objects),
            parent: Some(Rc::clone(self)),
            context: Rc::clone(&self.context),
        })
    }

    /// Makes a workplane in the same context with another plane and other objects, as
    /// `copyWorkplane` does.
    pub fn on(self: &Rc<Self>, plane: Plane, objects: Vec<Item>) -> Rc<Self> {
        Rc::new(Self {
            plane: RefCell::new(plane),
            objects: RefCell::new(objects),
            parent: Some(Rc::clone(self)),
            context: Rc::clone(&self.context),
        })
    }

    /// `tag`: stores this workplane under a name.
    pub fn tag(&self, name: &str) {
        let (plane, objects) = (self.plane.borrow().clone(), self.objects.borrow().clone());
        let tagged = Tagged { plane, objects, address: std::ptr::from_ref(self).addr() };
        let tags = &mut self.context.borrow_mut().tags;
        tags.retain(|(known, _)| known != name);
        tags.push((name.to_owned(), tagged));
    }

    /// `_getTagged`: returns the workplane with this tag. Raises if there is none.
    pub fn tagged(&self, name: &str) -> Result<Tagged, Stop> {
        let context = self.context.borrow();
        let found = context.tags.iter().find(|(known, _)| known == name).map(|(_, tagged)| tagged.clone());
        found.ok_or_else(|| Stop::raise("ValueError", format!("No Workplane object named {name} in chain")))
    }

    /// Returns whether a tag stands for this object, or for an earlier object at the same address.
    pub fn is_tagged(&self) -> bool {
        self.context.borrow().tags.iter().any(|(_, tagged)| tagged.address == std::ptr::from_ref(self).addr())
    }

    /// `_mergeTags`: adds the tags of another chain. The tags of this chain take precedence.
    pub fn merge_tags(&self, other: &Self) {
        if Rc::ptr_eq(&self.context, &other.context) {
            return;
        }
        let tags = &mut self.context.borrow_mut().tags;
        for (name, tagged) in &other.context.borrow().tags {
            if !tags.iter().any(|(known, _)| known == name) {
                tags.push((name.clone(), tagged.clone()));
            }
        }
    }

    /// `val`: returns the first object, or the plane's origin if there is none.
    pub fn val(&self) -> Item {
        self.objects.borrow().first().cloned().unwrap_or_else(|| Item::Point(self.plane.borrow().origin))
    }

    /// `_findFromPoint`: returns the start of the next edge. Only the last object counts.
    pub fn current_point(&self) -> Result<Vec3, Stop> {
        match self.objects.borrow().last() {
            None => Ok(self.plane.borrow().origin),
            Some(Item::Point(point) | Item::Vertex(point)) => Ok(*point),
            Some(Item::Edge(edge)) => match edge.ends() {
                Some((_, end)) => Ok(end),
                None => Err(Stop::decline("end of a circle", "")),
            },
            Some(item) if item.is_unordered() && !matches!(item, Item::Faces(_) | Item::Face(..)) => {
                Err(Stop::decline("point of an edge or a vertex of a body", ""))
            }
            Some(Item::Other(class)) => Err(Stop::decline("point of another kind", class)),
            Some(item) => Err(Stop::raise(
                "ValueError",
                format!(
                    "Cannot convert object type <class 'cadquery.occ_impl.shapes.{}'> to vector.",
                    item.class_name()
                ),
            )),
        }
    }

    /// Returns the current point in the plane's coordinates.
    pub fn current_local(&self) -> Result<Vec3, Stop> {
        let point = self.current_point()?;
        Ok(self.plane.borrow().to_local(point))
    }

    /// `_findType((Solid,))`: returns the bodies on the stack that hold a solid, or else those of
    /// the nearest ancestor that has some. A body that became empty is skipped, so the bodies
    /// before it are found again.
    pub fn bodies(&self) -> Vec<Rc<Body>> {
        let own: Vec<Rc<Body>> = solid_bodies(&self.objects.borrow());
        match &self.parent {
            Some(parent) if own.is_empty() => parent.bodies(),
            _ => own,
        }
    }
}

/// Returns the bodies among items that hold a solid.
pub fn solid_bodies(items: &[Item]) -> Vec<Rc<Body>> {
    let bodies = items.iter().filter_map(|item| match item {
        Item::Body(body) if body.holds_solid() => Some(Rc::clone(body)),
        _ => None,
    });
    bodies.collect()
}

impl Drop for Workplane {
    /// Frees a long chain link by link, not by recursion.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(link) = next {
            match Rc::try_unwrap(link) {
                Ok(mut link) => next = link.parent.take(),
                Err(_) => break,
            }
        }
    }
}

impl Object for Workplane {
    fn class_name(&self) -> String {
        "Workplane".to_owned()
    }

    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        if let Some(known) = signature(name) {
            return Ok(method(this, known.name));
        }
        if OTHERS.contains(&name) || MORE.contains(&name) || name.starts_with("__") {
            return Err(Stop::decline("Workplane method not supported", name));
        }
        Err(Stop::raise("AttributeError", format!("'Workplane' object has no attribute '{name}'")))
    }

    fn binary(&self, operator: BinaryOperator, other: &Value, reflected: bool) -> Result<Option<Value>, Stop> {
        if reflected || other.object::<Self>().is_none() {
            return Err(Stop::decline("operator of Workplane", format!("{operator:?}")));
        }
        // A stand-in for this object, which has no `Rc` to itself.
        let this = Rc::new(Self {
            plane: self.plane.clone(),
            objects: self.objects.clone(),
            parent: self.parent.clone(),
            context: Rc::clone(&self.context),
        });
        super::stack::binary(&this, operator, other).map(Some)
    }
}
