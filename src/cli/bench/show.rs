//! Reports as tables.

use super::super::Context;
use super::super::failure::{Answer, Done, Failure};
use super::super::out::{Table, visible};
use crate::base::shown::bytes;
use crate::measure::compare::Compared;
use crate::measure::page::{micros, number};
use crate::measure::verdict::bytes_a_second;
use crate::measure::{Figure, Report};

fn time(us: f64) -> String {
    if us > 0.0 { micros(us) } else { "-".to_owned() }
}

fn size(figure: &Figure) -> String {
    bytes(figure.bytes)
}

/// A measurement's figures, what was found out, and what limits.
pub(super) fn report(context: &mut Context, report: &Report) -> Result<(), Failure> {
    let mut table =
        Table::new(&["what", "how", ">size", ">at once", ">in a second", ">bytes", ">median", ">99 of 100"]);
    for figure in &report.figures {
        table.row([
            figure.what.clone(),
            figure.way.clone(),
            size(figure),
            figure.at_once.to_string(),
            number(figure.per_second),
            bytes_a_second(figure),
            time(figure.p50_us),
            time(figure.p99_us),
        ]);
    }
    context.out.text(table.render())?;
    context.out.line("")?;
    let mut table = Table::new(&["found out", ""]);
    for fact in &report.facts {
        table.row([fact.name.clone(), fact.found.clone()]);
    }
    context.out.text(table.render())?;
    if let Some(limit) = &report.limit {
        context.out.line(format_args!("\n{}", visible(&limit.sentence)))?;
    }
    Ok(())
}

/// Two reports.
pub(super) fn compared(context: &mut Context, compared: &Compared) -> Done {
    if context.json {
        context.out.json(compared)?;
        return Ok(Answer::Yes);
    }
    let times = |ratio: f64| if ratio > 0.0 { format!("{ratio:.2}") } else { "-".to_owned() };
    let mut table = Table::new(&[
        "part",
        "what",
        "how",
        ">size",
        ">at once",
        ">A",
        ">B",
        ">rate B/A",
        ">median B/A",
        ">99 B/A",
    ]);
    for row in &compared.rows {
        table.row([
            row.a.part.clone(),
            row.a.what.clone(),
            row.a.way.clone(),
            size(&row.a),
            row.a.at_once.to_string(),
            number(row.a.per_second),
            number(row.b.per_second),
            times(row.ratio),
            times(row.p50_ratio),
            times(row.p99_ratio),
        ]);
    }
    context.out.text(table.render())?;
    if !compared.facts.is_empty() {
        context.out.line("")?;
        let mut table = Table::new(&["differs", "A", "B"]);
        for (name, a, b) in &compared.facts {
            table.row([name.clone(), a.clone(), b.clone()]);
        }
        context.out.text(table.render())?;
    }
    let (a, b) = (compared.only_a, compared.only_b);
    if a + b > 0 {
        context.out.line(format_args!("\nmeasured by one alone: {a} of A, {b} of B"))?;
    }
    Ok(Answer::Yes)
}
