//! That table and reader agree: what may be written is read, and what is shown is true.

use std::path::PathBuf;

use super::build::asked;
use super::keys::{self, Key, Type, top};
use super::{LoadOptions, load};

fn conf() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conf")
}

/// Sections that are passed over whole, and what is read before the document is built.
fn read_elsewhere(path: &str, key: &Key) -> bool {
    key.refused
        || path == "include"
        || (matches!(key.ty, Type::Any)
            && !path.starts_with("container.registry")
            && !path.starts_with("container.events"))
}

#[test]
fn every_key_of_the_table_is_read() {
    let options = LoadOptions {
        files: vec![conf().join("everything.yml")],
        project_dir: conf(),
        // Only root may run as another user.
        env: [("USER_ID".to_owned(), nix::unistd::geteuid().to_string())].into(),
        ..LoadOptions::default()
    };
    let loaded = load(&options).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(loaded.cluster.services.len(), 14);
    fn below(path: &str, table: &'static [Key]) {
        for key in table {
            let path = super::raw::join(path, key.name);
            if path == "defaults" || read_elsewhere(&path, key) {
                continue;
            }
            assert!(asked::was(table, key.name), "`{path}` is accepted but not read");
            if let Some(inner) = key.ty.keys() {
                below(&path, inner);
            }
        }
    }
    below("", top::TOP);
}

#[test]
fn every_key_of_the_table_is_in_the_example() {
    let text = std::fs::read_to_string(conf().join("everything.yml")).unwrap();
    keys::walk(&mut |path, key| {
        if !key.refused && !(matches!(key.ty, Type::Any)) {
            let found = text.contains(&format!("{}:", key.name));
            assert!(found, "`{path}` is not in conf/everything.yml");
        }
    });
}

/// The reference's middle part is the table; the rest is for people to write.
#[test]
fn the_reference_is_up_to_date() {
    const BEGIN: &str = "<!-- keys: begin (made of the table of keys) -->\n";
    const END: &str = "<!-- keys: end -->";
    let path = conf().join("../docs/config.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = text.find(BEGIN).expect("the mark is there") + BEGIN.len();
    let end = text.find(END).expect("the mark is there");
    let expected = format!("{}{}\n{}", &text[..begin], keys::reference(), &text[end..]);
    if std::env::var_os("HILUM_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        text == expected,
        "docs/config.md is out of date: run `HILUM_BLESS=1 cargo test -p hilum-shared --lib the_reference`"
    );
}
