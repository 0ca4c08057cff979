use serde_json::json;

use super::*;

fn changed(change: Value) -> Result<GroupRules, Problem> {
    let mut rules = GroupRules::default();
    rules.terms.quota = Some(5);
    rules.prefix = "a-".to_owned();
    rules.attributes = [("site", "north"), ("line", "4")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let Value::Object(change) = change else { panic!("{change}") };
    merged(&rules, change)
}

#[test]
fn a_merge_patch_changes_what_it_names() {
    let same = changed(json!({})).unwrap();
    assert_eq!((same.terms.quota, same.prefix.as_str(), same.attributes.len()), (Some(5), "a-", 2));
    let rules =
        changed(json!({"quota": null, "prefix": null, "names": ["b-*"], "attributes": {"line": null, "row": "1"}})).unwrap();
    assert_eq!((rules.terms.quota, rules.prefix.as_str(), rules.terms.names.len()), (None, "", 1));
    assert_eq!(rules.attributes.keys().map(String::as_str).collect::<Vec<_>>(), ["row", "site"]);
    assert!(changed(json!({"attributes": null})).unwrap().attributes.is_empty());
}

#[test]
fn a_merge_patch_of_another_form_is_refused() {
    for change in [
        json!({"more": 1}),
        json!({"quotta": null}),
        json!({"quota": "5"}),
        json!({"names": "a"}),
        json!({"attributes": {"a": 1}}),
        json!({"attributes": []}),
    ] {
        assert_eq!(changed(change.clone()).expect_err("a wrong change").0.refusal, Refusal::MalformedRequest, "{change}");
    }
}
