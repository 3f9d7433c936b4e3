//! The dashboard is one that Grafana takes, and it and the alert rules ask for nothing that a node does not serve. That
//! Prometheus answers each of its questions, the test of a real one shows.

use crate::docs::read;
use hot_backup::node::http::described;
use serde_json::Value;
use std::collections::BTreeSet;

/// The schema that the dashboard was written for; Grafana brings older ones up to date by itself.
const SCHEMA: u64 = 39;
/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&read("tools/grafana.json")).expect("the dashboard is JSON")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no text {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// Each question that it asks Prometheus, of all nodes.
pub(crate) fn questions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = list(&dashboard, "panels").iter().flat_map(|panel| list(panel, "targets"));
    targets.map(|target| text(target, "expr").replace("$node", ".*")).collect()
}

/// The words in `text` that begin with `start` and go on as names do.
fn names(text: &str, start: &str) -> BTreeSet<String> {
    let ends = |rest: &str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    text.match_indices(start).map(|(at, _)| &text[at..]).map(|rest| rest[..ends(rest)].to_owned()).collect()
}

/// What is asked for and not served.
fn unknown(text: &str) -> Vec<String> {
    let served: BTreeSet<String> = described()
        .iter()
        .flat_map(|metric| match metric.kind {
            "histogram" => ["_bucket", "_count", "_sum"].map(|end| format!("{}{end}", metric.name)).to_vec(),
            _ => vec![metric.name.clone()],
        })
        .collect();
    assert!(served.len() > 30, "{served:?}");
    names(text, "hot_backup_").into_iter().filter(|name| !served.contains(name)).collect()
}

/// The labels that an answer to `question` may have.
fn labels(question: &str) -> BTreeSet<String> {
    let asked = names(question, "hot_backup_");
    let own = described();
    let own = own.iter().filter(|metric| asked.iter().any(|name| name.starts_with(metric.name.as_str())));
    let own = own.map(|metric| metric.label.to_owned());
    own.chain(["instance", "job", "le"].map(str::to_owned)).filter(|label| !label.is_empty()).collect()
}

#[test]
fn grafana_finds_in_the_dashboard_what_it_needs_each_panel_in_a_place_of_its_own() {
    let dashboard = dashboard();
    assert_eq!(number(&dashboard, "schemaVersion"), SCHEMA);
    let known = |value: &Value| value.as_str().is_some_and(|uid| uid == "hot-backup");
    assert!(known(&dashboard["uid"]) && known(&dashboard["title"]));
    assert!(dashboard["id"].is_null(), "a number of somebody's own Grafana");
    let variables = list(&dashboard["templating"], "list");
    let sources = variables.iter().filter(|one| text(one, "type") == "datasource");
    let sources: Vec<String> = sources.map(|one| format!("${{{}}}", text(one, "name"))).collect();
    assert_eq!(sources, ["${source}"]);
    let own_source = |value: &Value| {
        let source = &value["datasource"];
        assert_eq!((text(source, "type"), text(source, "uid")), ("prometheus", "${source}"), "{value}");
    };
    for variable in variables.iter().filter(|one| text(one, "type") == "query") {
        own_source(variable);
        assert_eq!(unknown(text(variable, "query")), [""; 0]);
    }
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        assert!(ids.insert(number(panel, "id")), "two panels have the number of {panel}");
        assert!(["stat", "timeseries"].contains(&text(panel, "type")), "{panel}");
        text(panel, "title");
        text(&panel["fieldConfig"]["defaults"], "unit");
        own_source(panel);
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| number(&panel["gridPos"], key));
        assert!(width > 0 && height > 0 && x + width <= COLUMNS, "{panel}");
        for place in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{panel} lies over another");
        }
        let mut references = BTreeSet::new();
        for target in list(panel, "targets") {
            own_source(target);
            assert!(references.insert(text(target, "refId")), "{panel}");
        }
    }
    assert!(ids.len() > 10);
}

#[test]
fn the_dashboard_and_the_alert_rules_ask_only_for_metrics_labels_and_variables_that_there_are() {
    let dashboard = dashboard();
    let variables: BTreeSet<&str> =
        list(&dashboard["templating"], "list").iter().map(|one| text(one, "name")).collect();
    for target in list(&dashboard, "panels").iter().flat_map(|panel| list(panel, "targets")) {
        let (question, legend) = (text(target, "expr"), text(target, "legendFormat"));
        assert!(!names(question, "hot_backup_").is_empty(), "{question}");
        assert_eq!(unknown(question), [""; 0], "{question}");
        for part in question.split('$').skip(1) {
            assert!(variables.iter().any(|name| part.starts_with(name)), "{question}: no variable ${part}");
        }
        for part in legend.split("{{").skip(1) {
            let label = part.split("}}").next().unwrap();
            assert!(labels(question).contains(label), "{legend}: no label {label} in {question}");
        }
    }
    assert_eq!(unknown(&read("tools/prometheus-rules.yml")), [""; 0]);
    assert_eq!(unknown("hot_backup_up == 0 or rate(hot_backup_no_such[1m])"), ["hot_backup_no_such"]);
}
