//! Reads programs in the data set's statement forms.

use cadwright_rewards::csg::Operation;

use super::{Body, Draft, Loop, Piece, Point};

impl Draft {
    /// The draft of a program. `None` if a statement has another form, or if the statements mean
    /// something else than their names say: a loop that is not added, a body that is not used.
    pub fn parse(program: &str) -> Option<Self> {
        let mut lines =
            program.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
        lines.next_if_eq(&"import cadquery as cq");
        let mut bodies = Vec::new();
        let mut first_loop = 0;
        while lines.peek().is_some() {
            let number = bodies.len();
            let sketch = format!("wp_sketch{number}");
            let mut body = plane(lines.next()?, &sketch)?;
            let mut adds = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with("loop")) {
                let name = format!("loop{}", first_loop + body.loops.len());
                let calls = after_assignment(line, &name)?.strip_prefix(&sketch)?;
                body.loops.push(outline(calls)?);
                adds += &format!(".add({name})");
            }
            first_loop += body.loops.len();
            let calls = after_assignment(lines.next()?, &format!("solid{number}"))?;
            let extrude =
                calls.strip_prefix(&sketch)?.strip_prefix(&adds)?.strip_prefix(".extrude(")?.strip_suffix(')')?;
            (body.distance, body.both) = match extrude.split_once(',') {
                Some((distance, both)) => (value(distance)?, flag(both)?),
                None => (value(extrude)?, false),
            };
            body.operation = operation(after_assignment(lines.next()?, "solid")?, number)?;
            bodies.push(body);
        }
        let is_whole = !bodies.is_empty() && bodies.iter().all(|body: &Body| !body.loops.is_empty());
        is_whole.then_some(Self { bodies })
    }
}

/// What follows `name =`.
fn after_assignment<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    Some(line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim_start())
}

/// A body with this sketch plane and nothing else yet.
fn plane(line: &str, sketch: &str) -> Option<Body> {
    let calls = after_assignment(line, sketch)?.strip_prefix("cq.Workplane(cq.Plane(")?.strip_suffix("))")?;
    let mut vectors = calls
        .split("cq.Vector(")
        .skip(1)
        .map(|text| numbers::<3>(text.trim_end_matches([' ', ',']).strip_suffix(')')?));
    let (origin, x_dir, normal) = (vectors.next()??, vectors.next()??, vectors.next()??);
    let body =
        Body { operation: Operation::Union, origin, x_dir, normal, loops: Vec::new(), distance: 0.0, both: false };
    vectors.next().is_none().then_some(body)
}

/// `.moveTo(x, y).circle(r)`, or `.moveTo(x, y)`, pieces and `.close()`.
fn outline(calls: &str) -> Option<Loop> {
    let (start, mut rest) = call(calls, ".moveTo(")?;
    let start: Point = numbers(start)?;
    if let Some((radius, "")) = call(rest, ".circle(") {
        return Some(Loop::Circle { center: start, radius: value(radius)? });
    }
    let mut pieces = Vec::new();
    while rest != ".close()" {
        if let Some((to, after)) = call(rest, ".lineTo(") {
            pieces.push(Piece::Line(numbers(to)?));
            rest = after;
        } else {
            let (points, after) = rest.strip_prefix(".threePointArc((")?.split_once("))")?;
            let (through, to) = points.split_once(')')?;
            pieces.push(Piece::Arc(numbers(through)?, numbers(to.trim_start_matches([',', ' ']).strip_prefix('(')?)?));
            rest = after;
        }
    }
    (!pieces.is_empty()).then_some(Loop::Path { start, pieces })
}

/// The arguments of the call that `text` begins with, and what follows it.
fn call<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(name)?.split_once(')')
}

fn operation(text: &str, number: usize) -> Option<Operation> {
    let body = format!("solid{number}");
    if number == 0 {
        return (text == body).then_some(Operation::Union);
    }
    let (name, argument) = text.strip_prefix("solid.")?.strip_suffix(')')?.split_once('(')?;
    match name {
        _ if argument != body => None,
        "union" => Some(Operation::Union),
        "cut" => Some(Operation::Cut),
        "intersect" => Some(Operation::Intersect),
        _ => None,
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.trim().strip_prefix("both")?.trim_start().strip_prefix('=')?.trim() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn value(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let values: Option<Vec<f64>> = text.split(',').map(value).collect();
    values?.try_into().ok()
}
