//! Our descriptions of ourselves against the schemas that OpenAPI and AsyncAPI publish for theirs.

use crate::harness::{ONE_OF_EACH, Tree, openapi};
use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Value, json};
use std::collections::HashMap;

struct Published(Schemas, SchemaIndex);

impl Published {
    fn read(text: &str, draft: Draft) -> Published {
        const AT: &str = "http://published/schema.json";
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(draft);
        compiler.enable_format_assertions();
        let mut json: Value = serde_json::from_str(text).expect("it is JSON");
        // Under a name of ours, so that nothing is looked for elsewhere.
        json.as_object_mut().expect("an object").remove("$id");
        compiler.add_resource(AT, json).expect("it is a schema");
        let index = compiler.compile(AT, &mut schemas).unwrap_or_else(|e| panic!("{e:#}"));
        Published(schemas, index)
    }

    fn takes(&self, document: &Value) -> Result<(), String> {
        self.0.validate(document, self.1).map_err(|e| format!("{e:#}"))
    }
}

#[test]
fn our_description_of_the_http_api_is_what_openapi_says_one_is() {
    let published = Published::read(include_str!("standards/openapi-3.1.json"), Draft::V2020_12);
    let ours = &openapi::document().json;
    published.takes(ours).unwrap_or_else(|e| panic!("{e}"));
    // It sees what is wrong.
    let mut bad = ours.clone();
    bad["paths"]["/v1/cases"]["get"]["responses"] = json!({"2000": {}});
    assert!(published.takes(&bad).is_err());
    let mut bad = ours.clone();
    bad["info"].as_object_mut().expect("an object").remove("version");
    assert!(published.takes(&bad).is_err());
}

#[test]
fn a_node_s_description_of_its_events_is_what_asyncapi_says_one_is() {
    let published = Published::read(include_str!("standards/asyncapi-3.0.json"), Draft::V7);
    let more = "preset = \"zigbee2mqtt\"\n[[map]]\nfilter = \"in/meter/#\"\nformat = \"text\"\ntype = \"t.meter\"\n[homeassistant]\ndiscovery = true\n";
    for (config, channels_min) in [("", 3), (ONE_OF_EACH, 4), (more, 4)] {
        let mut tree = Tree::with(&["c"], &HashMap::new(), config);
        tree.start();
        let text = tree.node("c").get_text("/asyncapi.json").expect("it is told");
        let ours: Value = serde_json::from_str(&text).expect("JSON");
        published.takes(&ours).unwrap_or_else(|e| panic!("{e}\n{ours:#}"));
        let channels = ours["channels"].as_object().expect("channels");
        assert!(channels.len() >= channels_min, "{channels:#?}");
        let mut bad = ours.clone();
        bad["operations"][ours["operations"].as_object().and_then(|o| o.keys().next()).expect("one")]["action"] =
            "shout".into();
        assert!(published.takes(&bad).is_err());
        let mut bad = ours.clone();
        bad.as_object_mut().expect("an object").remove("asyncapi");
        assert!(published.takes(&bad).is_err());
    }
}
