//! A compact reference of CadQuery for prompts, written from the tables that the engine calls by.

use super::signatures::{METHODS, MINOR, PLANE, Signature, Topic, WORKPLANE};
use crate::native::python::Parameter;

/// A part with a plane by name, a plane by vectors, and a boolean. A test executes it.
const EXAMPLE: &str = "\
import cadquery as cq
plate = cq.Workplane(\"XY\").rect(2.0, 1.0).extrude(0.25)
side = cq.Workplane(cq.Plane(cq.Vector(0.0, 0.5, 0.0), cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, -1.0, 0.0)))
slot = side.moveTo(0.0, 0.25).circle(0.125).extrude(1.0)
solid = plate.cut(slot)
";

/// The methods of a workplane by topic, each with its parameters, and an example: about 2,000
/// bytes of ASCII. An optional parameter is followed by `=`; those that hardly change a shape are
/// left out.
pub fn reference() -> String {
    written(METHODS)
}

fn written(methods: &[Signature]) -> String {
    let mut text = format!(
        "CadQuery in brief. The methods of a Workplane chain; parameters with = are optional. The variable solid is the \
         part.\ncq.Workplane{}, cq.Plane{}, cq.Vector(x, y, z)\n",
        parameters(&WORKPLANE),
        parameters(&PLANE)
    );
    for topic in Topic::ALL {
        let calls: Vec<String> = methods
            .iter()
            .filter(|method| method.topic == topic)
            .map(|method| format!("{}{}", method.name, parameters(method.parameters)))
            .collect();
        text += &format!("{}: {}\n", topic.heading(), calls.join(", "));
    }
    text + "Example:\n" + EXAMPLE
}

/// `(x, y, centered=)`.
fn parameters(parameters: &[Parameter]) -> String {
    let shown = parameters.iter().filter(|parameter| is_shown(parameter));
    let names: Vec<String> =
        shown.map(|parameter| format!("{}{}", parameter.name, if parameter.required { "" } else { "=" })).collect();
    format!("({})", names.join(", "))
}

fn is_shown(parameter: &Parameter) -> bool {
    parameter.required || !MINOR.contains(&parameter.name)
}

#[cfg(test)]
mod tests {
    use super::super::signatures::signature;
    use super::*;
    use crate::outcome::Outcome;

    /// Names before a parenthesis.
    fn called(text: &str) -> impl Iterator<Item = &str> {
        let names = text.match_indices('(').map(|(at, _)| {
            let before = &text[..at];
            let start = before.rfind(|c: char| !c.is_alphanumeric()).map_or(0, |found| found + 1);
            &before[start..]
        });
        names.filter(|name| !name.is_empty())
    }

    #[test]
    fn a_method_that_is_added_to_the_table_shows() {
        let added = Signature { name: "loftBetween", parameters: &PLANE, topic: Topic::Extrusion };
        let text = written(&[METHODS, &[added]].concat());
        assert!(text.contains("loftBetween(origin, xDir=, normal=)"), "{text}");
        assert!(!reference().contains("loftBetween"));
    }

    #[test]
    fn the_reference_names_every_method_and_nothing_that_the_engine_does_not_know() {
        let text = reference();
        let (_, table) = text.split_once("cq.Vector(x, y, z)\n").expect("the constructors come first");
        let (table, example) = table.split_once("Example:\n").expect("the example comes last");
        let names: Vec<&str> = called(table).collect();
        assert_eq!(names.len(), METHODS.len());
        for name in names {
            assert!(signature(name).is_some(), "{name}");
            // The engine finds the method; what it says of a call without arguments is another
            // matter.
            let found = crate::native::execute(&format!("import cadquery as cq\nm = cq.Workplane().{name}"));
            assert!(!matches!(&found, Err(decline) if decline.reason.contains("not supported")), "{name}: {found:?}");
            let Ok(Outcome::Failure(failure)) = found else { panic!("{name}: a method is no solid") };
            assert!(!failure.error.contains("AttributeError"), "{name}: {}", failure.error);
        }
        for name in called(example).filter(|name| !["Workplane", "Plane", "Vector"].contains(name)) {
            assert!(signature(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_parameter_but_the_minor_ones_is_shown() {
        let text = reference();
        for method in METHODS {
            for parameter in method.parameters.iter().filter(|parameter| is_shown(parameter)) {
                assert!(text.contains(parameter.name), "{}: {}", method.name, parameter.name);
            }
        }
        for minor in MINOR {
            assert!(!text.contains(&format!("{minor}=")), "{minor}");
        }
    }

    #[test]
    fn the_example_builds_its_part() {
        let found = crate::native::execute(EXAMPLE.trim_end());
        let Ok(Outcome::Solid(solid)) = found else { panic!("{found:?}") };
        // The plate minus half of a cylinder of radius 1/8 through it: its axis lies in the top
        // face.
        let expected = 2.0 * 1.0 * 0.25 - std::f64::consts::PI * 0.125 * 0.125 / 2.0;
        assert!((solid.mass().volume - expected).abs() < 1e-7, "{}", solid.mass().volume);
    }

    /// At most 700 tokens of Qwen2. Its vocabulary is not here, so two counts stand for it. A token
    /// of such text has three bytes at least on average, and a word of a name is rarely more than
    /// one token, or two if it is long.
    #[test]
    fn the_reference_is_short() {
        let text = reference();
        assert!(text.is_ascii() && text.len() <= 2_100, "{} bytes", text.len());
        let mut pieces = 0;
        let (mut word, mut last) = (0, ' ');
        for c in text.chars() {
            let starts = !last.is_ascii_alphabetic() || c.is_ascii_uppercase() && last.is_ascii_lowercase();
            word = if c.is_ascii_alphabetic() && !starts { word + 1 } else { 0 };
            pieces += match c {
                c if c.is_ascii_alphabetic() => usize::from(starts || word == 8),
                c if c.is_ascii_digit() => 1,
                ' ' => 0,
                _ => usize::from(last.is_ascii_alphanumeric() || last == ' ' || last == '\n'),
            };
            last = c;
        }
        assert!(pieces <= 700, "{pieces} pieces");
    }
}
