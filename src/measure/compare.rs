//! Two reports side by side.

use super::report::{Figure, Report};
use serde::Serialize;
use std::collections::BTreeMap;

/// What both measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The first.
    pub a: Figure,
    /// The second.
    pub b: Figure,
    /// How many times the rate of the first the second has.
    pub ratio: f64,
    /// How many times as long half of them took; 0 if one of them did not time it.
    pub p50_ratio: f64,
    /// The same of 99 of 100.
    pub p99_ratio: f64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Compared {
    /// What both measured, in the order of the first.
    pub rows: Vec<Row>,
    /// Measurements that only the first has.
    pub only_a: usize,
    /// Measurements that only the second has.
    pub only_b: usize,
    /// Facts that differ: name, of the first, of the second.
    pub facts: Vec<(String, String, String)>,
}

/// Sets `b` beside `a`.
#[must_use]
pub fn compare(a: &Report, b: &Report) -> Compared {
    let keys =
        |report: &'_ Report| report.figures.iter().map(|one| (owned(one.key()), one.clone())).collect();
    let (of_a, of_b): (BTreeMap<_, Figure>, BTreeMap<_, Figure>) = (keys(a), keys(b));
    let row = |one: &Figure| {
        let other = of_b.get(&owned(one.key()))?.clone();
        let ratio = quotient(other.per_second, one.per_second);
        let (p50_ratio, p99_ratio) = (quotient(other.p50_us, one.p50_us), quotient(other.p99_us, one.p99_us));
        Some(Row { a: one.clone(), b: other, ratio, p50_ratio, p99_ratio })
    };
    let rows: Vec<_> = a.figures.iter().filter_map(row).collect();
    let found = |report: &Report, name: &str| {
        let fact = report.facts.iter().find(|fact| fact.name == name);
        fact.map_or_else(|| "-".to_owned(), |fact| fact.found.clone())
    };
    let mut names: Vec<&str> = a.facts.iter().chain(&b.facts).map(|fact| fact.name.as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let facts = names.into_iter().map(|name| (name.to_owned(), found(a, name), found(b, name)));
    Compared {
        rows,
        only_a: of_a.keys().filter(|key| !of_b.contains_key(*key)).count(),
        only_b: of_b.keys().filter(|key| !of_a.contains_key(*key)).count(),
        facts: facts.filter(|(_, a, b)| a != b).collect(),
    }
}

type Key = (String, String, String, u64, u64);

fn owned((part, what, way, bytes, at_once): (&str, &str, &str, u64, u64)) -> Key {
    (part.to_owned(), what.to_owned(), way.to_owned(), bytes, at_once)
}

/// 0 where there is nothing to divide by.
fn quotient(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if b > 0.0 && quotient.is_finite() { quotient } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::report::Fact;

    fn report(figures: &[(&str, f64, f64)], facts: &[(&str, &str)]) -> Report {
        let figure = |(way, per_second, p99_us): &(&str, f64, f64)| Figure {
            way: (*way).to_owned(),
            per_second: *per_second,
            p99_us: *p99_us,
            ..Figure::default()
        };
        let fact =
            |(name, found): &(&str, &str)| Fact { name: (*name).to_owned(), found: (*found).to_owned() };
        Report {
            figures: figures.iter().map(figure).collect(),
            facts: facts.iter().map(fact).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn the_same_measurements_are_set_beside_each_other_and_others_are_counted() {
        let a = report(
            &[("x", 100.0, 10.0), ("y", 5.0, 0.0), ("gone", 1.0, 1.0)],
            &[("kernel", "6"), ("same", "1")],
        );
        let b =
            report(&[("y", 10.0, 3.0), ("x", 150.0, 5.0)], &[("kernel", "7"), ("same", "1"), ("new", "2")]);
        let compared = compare(&a, &b);
        let ratios: Vec<_> =
            compared.rows.iter().map(|row| (row.a.way.as_str(), row.ratio, row.p99_ratio)).collect();
        assert_eq!(ratios, [("x", 1.5, 0.5), ("y", 2.0, 0.0)]);
        assert_eq!((compared.only_a, compared.only_b), (1, 0));
        let of = |name: &str, a: &str, b: &str| (name.to_owned(), a.to_owned(), b.to_owned());
        assert_eq!(compared.facts, [of("kernel", "6", "7"), of("new", "-", "2")]);
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let none = report(&[("x", 0.0, 0.0)], &[]);
        let compared = compare(&none, &report(&[("x", 5.0, f64::MAX)], &[]));
        assert_eq!(
            compared.rows.iter().map(|row| (row.ratio, row.p99_ratio)).collect::<Vec<_>>(),
            [(0.0, 0.0)]
        );
    }
}
