//! The list of mutants of `make mutants` agrees with the code.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

#[test]
fn every_mutant_stands_in_the_code_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect(name);
    let mutants: Vec<Value> =
        serde_json::from_str(&read("tests/mutants.json")).expect("a list of mutants");
    let mut ids = BTreeSet::new();
    for mutant in &mutants {
        let text = |name: &str| mutant[name].as_str();
        let id = text("id").expect("an id");
        assert!(ids.insert(id), "{id} is there twice");
        assert_ne!(
            text("test").is_some(),
            text("reason").is_some(),
            "{id}: a test, or a reason to survive"
        );
        let source = read(text("file").expect("a file"));
        let from = text("from").expect("a text");
        assert_ne!(Some(from), text("to"), "{id} changes nothing");
        match text("after") {
            None => assert_eq!(source.matches(from).count(), 1, "{id}"),
            Some(after) => {
                let (_, behind) = source.split_once(after).expect(id);
                assert!(behind.contains(from), "{id}");
                assert_eq!(source.matches(after).count(), 1, "{id}: its place");
            }
        }
    }
}
