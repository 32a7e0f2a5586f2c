//! The page: a template with style, scripts and data.

use anyhow::Result;

use super::Document;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The scripts, in the order in which they run.
const SCRIPTS: [&str; 9] = [
    include_str!("page.js"),
    include_str!("charts.js"),
    include_str!("sections.js"),
    include_str!("solids.js"),
    include_str!("viewer.js"),
    include_str!("difference.js"),
    include_str!("gallery.js"),
    include_str!("part.js"),
    include_str!("start.js"),
];

/// The page of a document.
///
/// Its policy allows nothing from elsewhere, and only those scripts that carry the number in the
/// policy: the hash of the data, which a text in the data cannot know.
///
/// # Errors
/// None that can happen: a document is JSON.
pub fn html(document: &Document) -> Result<String> {
    // As JSON, `<` occurs in texts only. Without it, no text can end the block of data.
    let data = serde_json::to_string(document)?.replace('<', "\\u003c");
    let nonce = blake3::hash(data.as_bytes()).to_hex();
    let names: Vec<&str> = document.runs.iter().map(|run| run.name.as_str()).collect();
    let scripts = SCRIPTS.concat();
    let piece = |(index, piece): (usize, &str)| match (index % 2, piece) {
        (1, "title") => escaped(&names.join(", ")),
        (1, "nonce") => nonce.to_string(),
        (1, "style") => STYLE.to_owned(),
        (1, "script") => scripts.clone(),
        (1, "data") => data.clone(),
        _ => piece.to_owned(),
    };
    Ok(TEMPLATE.split("@@").enumerate().map(piece).collect())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, note: &str) -> Document {
        Document {
            version: "1",
            commit: "c",
            runs: vec![super::super::ShownRun {
                name: name.to_owned(),
                path: String::new(),
                about: serde_json::Value::Null,
                config: String::new(),
                facts: Vec::new(),
                stages: Vec::new(),
                curves: Vec::new(),
                missing: Vec::new(),
            }],
            policies: Vec::new(),
            comparisons: Vec::new(),
            frame: None,
            parts: Vec::new(),
            parts_total: 0,
            notes: vec![note.to_owned()],
        }
    }

    #[test]
    fn texts_cannot_end_the_block_of_data_or_the_title() {
        let hostile = "</script><script>alert(1)</script><!-- </title> @@data@@";
        let page = html(&document(hostile, hostile)).unwrap();
        // The template's own: the block of data and the script.
        assert_eq!(page.matches("<script").count(), 2, "{page:.500}");
        assert_eq!((page.matches("</script>").count(), page.matches("</title>").count()), (2, 1));
        let start = page.find("type=\"application/json\">").unwrap() + "type=\"application/json\">".len();
        let data = &page[start..start + page[start..].find("</script>").unwrap()];
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["notes"][0], &data["runs"][0]["name"]), (&hostile.into(), &hostile.into()));
    }

    #[test]
    fn the_page_names_nothing_elsewhere() {
        let page = html(&document("run", "note")).unwrap();
        for text in ["http://", "https://", "src=\"", "@import", "url("] {
            let found: Vec<&str> = page.lines().filter(|line| line.contains(text)).collect();
            let is_namespace = |line: &&str| line.contains("http://www.w3.org/2000/svg");
            assert!(found.iter().all(is_namespace), "{text}: {found:?}");
        }
    }
}
