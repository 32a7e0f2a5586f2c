//! What may differ between a run and its continuation.

/// Each key that decides what comes out, with both values where they differ, in sections that `is_bound`.
pub(super) fn differing_keys(before: &str, now: &str, is_bound: impl Fn(&str) -> bool) -> Vec<String> {
    // Where programs run and how many at once does not change what comes out.
    const HARMLESS: [&str; 5] =
        ["run.output_dir", "run.threads", "run.control", "rollout.workers", "rollout.cache_dir"];
    fn walk(before: &toml::Table, now: &toml::Table, prefix: &str, differing: &mut Vec<String>) {
        for (key, value) in now {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match (before.get(key), value) {
                (Some(toml::Value::Table(before)), toml::Value::Table(now)) => walk(before, now, &path, differing),
                (Some(before), now) if before == now || HARMLESS.contains(&path.as_str()) => {}
                (Some(before), now) => differing.push(format!("{path} = {before} there, {now} now")),
                (None, now) => differing.push(format!("{path} not there, {now} now")),
            }
        }
    }
    let parse = |text: &str| {
        let mut table = text.parse::<toml::Table>().unwrap_or_default();
        table.retain(|section, _| is_bound(section));
        table
    };
    let mut differing = Vec::new();
    walk(&parse(before), &parse(now), "", &mut differing);
    differing
}
