//! What the documents name is there: tests in `docs/faults.md`, files behind links and in recipes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The file that `docs/faults.md` means by a short name.
fn file(name: &str) -> String {
    match name {
        "world" => "node/src/core/world/random.rs".to_owned(),
        "change" | "depend" | "life" | "passing" => format!("node/src/core/scenarios/{name}.rs"),
        "config" | "config_diagnostics" | "config_syntax" => format!("shared/tests/{name}.rs"),
        _ if name.starts_with("wire_") => format!("shared/tests/{name}.rs"),
        _ if name.starts_with("log/") => format!("node/tests/{name}.rs"),
        _ if name.starts_with("e2e/") => format!("tests/tests/{name}"),
        _ if name.contains('/') => name.to_owned(),
        _ => format!("node/tests/{name}.rs"),
    }
}

/// A file's text; of a test that is a folder the texts of all its files.
fn sources(path: &str) -> String {
    let Some(folder) = path.strip_suffix(".rs").map(|name| root().join(name)) else {
        return text(path);
    };
    if root().join(path).exists() {
        return text(path);
    }
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn every_test_that_the_faults_name_exists() {
    let named = Regex::new(r"`([\w/.]+)::(\w+)`").unwrap();
    let faults = text("docs/faults.md");
    let mut count = 0;
    for (_, [place, test]) in named.captures_iter(&faults).map(|found| found.extract()) {
        if (place, test) == ("file", "test") {
            continue; // how they are written
        }
        count += 1;
        let source = sources(&file(place));
        // A function, or a case of a macro that makes one of each line.
        let there =
            source.contains(&format!("fn {test}(")) || source.contains(&format!("    {test}: "));
        assert!(there, "docs/faults.md names {place}::{test}, which is not there");
    }
    assert!(count > 50, "only {count} tests were found in docs/faults.md");
}

#[test]
fn every_link_and_path_of_the_documents_leads_somewhere() {
    let link = Regex::new(r"\]\(([\w./-]+)(#[\w-]+)?\)").unwrap();
    let path =
        Regex::new(r"`((?:node|shared|worker|tests|conf|scripts|docs)/[\w./-]*\w)`").unwrap();
    for name in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/faults.md",
        "docs/logs.md",
    ] {
        let page = text(name);
        let folder = Path::new(name).parent().unwrap();
        for found in link.captures_iter(&page) {
            assert!(root().join(folder).join(&found[1]).exists(), "{name} links to {}", &found[1]);
        }
        for found in path.captures_iter(&page).filter(|found| !found[1].contains("VERB")) {
            assert!(root().join(&found[1]).exists(), "{name} names {}", &found[1]);
        }
    }
}
