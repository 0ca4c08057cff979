//! The manual's examples are sets that compile.

use fleetmark_policy::{DEFAULT_FLEET, Set};

const MANUAL: &str = include_str!("../../../docs/policy.md");

#[test]
fn every_example_compiles_beside_the_default_set() {
    let mut examples = 0;
    for block in MANUAL.split("```cedar\n").skip(1) {
        let (example, _) = block.split_once("```").expect("the block ends");
        Set::compile(example).unwrap_or_else(|findings| panic!("{example}\n{findings:?}"));
        if !example.contains("@id(\"connect\")") {
            Set::compile(&format!("{DEFAULT_FLEET}\n{example}")).unwrap_or_else(|findings| panic!("{example}\n{findings:?}"));
        }
        examples += 1;
    }
    assert_eq!(examples, 7);
}
