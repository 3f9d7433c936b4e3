//! A report as one page that needs nothing else: plots, the figures below them, what was found out.

use super::report::{Figure, Report};
use super::{float, verdict::bytes_a_second};
use crate::base::shown::{bytes, safe, utc};
use std::collections::BTreeSet;
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");
/// Size of a plot, and of its margins, in its own units.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 72.0;
const BELOW: f64 = 34.0;
const AROUND: f64 = 14.0;
const RIGHT: f64 = 28.0;
/// A plot has no more lines than can be told apart.
const LINES_MAX: usize = 7;

/// The titles of what was measured.
const TITLES: &[(&str, &str, &str)] = &[
    ("disk", "write", "Durable writes, one after the other"),
    ("disk", "depth", "Durable writes of 4 KiB, many at once"),
    ("disk", "ring", "Ways past the kernel, durable writes of 4 KiB"),
    ("disk", "read", "Sequential reads past the page cache"),
    ("disk", "journal", "The journal beside the raw disk"),
    ("link", "echo", "A word to the other side and back"),
    ("link", "stream", "Messages one behind the other"),
    ("pair", "set", "Updates of a pair"),
    ("tape", "write", "Blocks written to tape"),
    ("tape", "read", "Blocks read from tape"),
];

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let _ = write!(out, "<title>hot-backup bench</title>\n<style>\n{STYLE}</style></head><body>\n");
    let _ = write!(
        out,
        "<h1>What this machine gives, and what hot-backup reaches of it</h1>\n<p class=\"when\">hot-backup {}, {}</p>\n",
        safe(&report.program),
        utc(report.wall_ms)
    );
    if let Some(limit) = &report.limit {
        let _ = writeln!(out, "<p class=\"limit\">{}</p>", safe(&limit.sentence));
    }
    for group in groups(report) {
        section(&mut out, &group);
    }
    out.push_str("<section><h2>Found out besides</h2><dl>\n");
    for fact in &report.facts {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", safe(&fact.name), safe(&fact.found));
    }
    out.push_str("</dl></section>\n</body></html>\n");
    out
}

/// Figures of one part and what, in their order.
fn groups(report: &Report) -> Vec<Vec<&Figure>> {
    let mut groups: Vec<Vec<&Figure>> = Vec::new();
    for figure in &report.figures {
        let same = |group: &&mut Vec<&Figure>| {
            group.first().is_some_and(|first| first.part == figure.part && first.what == figure.what)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(figure),
            None => groups.push(vec![figure]),
        }
    }
    groups
}

/// What the lines of a plot stand over.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Bytes,
    AtOnce,
    Nothing,
}

/// A plot of one quantity.
struct Plot<'a> {
    title: String,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    over: Over,
    shown: &'a dyn Fn(f64) -> String,
}

fn section(out: &mut String, group: &[&Figure]) {
    let Some(first) = group.first() else { return };
    let title = TITLES.iter().find(|(part, what, _)| *part == first.part && *what == first.what);
    let title =
        title.map_or_else(|| format!("{}: {}", first.part, first.what), |(.., title)| (*title).to_owned());
    let _ = writeln!(out, "<section><h2>{}</h2>", safe(&title));
    let count = |of: &dyn Fn(&Figure) -> u64| group.iter().map(|f| of(f)).collect::<BTreeSet<_>>().len();
    let over = match (count(&|f| f.bytes), count(&|f| f.at_once)) {
        (1, 1) => Over::Nothing,
        (1, _) => Over::AtOnce,
        _ => Over::Bytes,
    };
    let lines = |y: &dyn Fn(&Figure) -> f64| lines(group, over, y);
    let many = over == Over::Bytes;
    let rate: &dyn Fn(f64) -> String = if many { &mega_bytes } else { &number };
    let rates = if many { lines(&Figure::bytes_per_second) } else { lines(&|f| f.per_second) };
    let names: Vec<_> = rates.iter().map(|(name, _)| name.clone()).collect();
    out.push_str("<ul class=\"key\">");
    for (n, name) in names.iter().enumerate() {
        let _ = write!(out, "<li class=\"s{n}\"><i></i>{}</li>", safe(name));
    }
    out.push_str("</ul>\n<div class=\"plots\">\n");
    let title = if many { "bytes in a second" } else { "in a second" };
    plot(out, &Plot { title: title.to_owned(), lines: rates, over, shown: rate });
    let times = lines(&|f| f.p99_us);
    if times.iter().any(|(_, points)| points.iter().any(|(_, y)| *y > 0.0)) {
        let title = "99 of 100 took no longer than".to_owned();
        plot(out, &Plot { title, lines: times, over, shown: &micros });
    }
    out.push_str("</div>\n");
    table(out, group);
    out.push_str("</section>\n");
}

/// A line for each way; where sizes and numbers at once both differ, for each number of each way.
fn lines(group: &[&Figure], over: Over, y: &dyn Fn(&Figure) -> f64) -> Vec<(String, Vec<(f64, f64)>)> {
    let numbers: BTreeSet<_> = group.iter().map(|f| f.at_once).collect();
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for figure in group {
        let name = if over == Over::Bytes && numbers.len() > 1 {
            format!("{}, {} at once", figure.way, figure.at_once)
        } else {
            figure.way.clone()
        };
        let x = match over {
            Over::Bytes => float(figure.bytes),
            Over::AtOnce => float(figure.at_once),
            Over::Nothing => 0.0,
        };
        let point = (x, y(figure));
        match lines.iter().position(|(other, _)| *other == name) {
            Some(at) => lines.get_mut(at).into_iter().for_each(|(_, points)| points.push(point)),
            None if lines.len() < LINES_MAX => lines.push((name, vec![point])),
            None => {}
        }
    }
    lines.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    lines
}

/// From values to places, both logarithmic.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let good = values.filter(|value| value.is_finite() && *value > 0.0).map(f64::log2);
        let (from, to) = good.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if from > to {
            return Self { from: 0.0, to: 1.0, start, end };
        }
        let (from, to) = if to - from < 0.1 { (from - 0.5, to + 0.5) } else { (from, to) };
        Self { from, to, start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).log2() - self.from) / (self.to - self.from);
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// Some values to write at the axis: powers of `base`.
    fn ticks(&self, base: f64) -> Vec<f64> {
        let (first, last) = ((self.from / base.log2()).ceil(), (self.to / base.log2()).floor());
        let mut ticks = Vec::new();
        let mut power = first;
        let step = ((last - first) / 6.0).ceil().max(1.0);
        while power <= last && ticks.len() < 12 {
            ticks.push(base.powf(power));
            power += step;
        }
        ticks
    }
}

fn plot(out: &mut String, plot: &Plot<'_>) {
    if plot.over == Over::Nothing {
        return bars(out, plot);
    }
    let points = || plot.lines.iter().flat_map(|(_, points)| points.iter().copied());
    let x = Scale::over(points().map(|(x, _)| x), LEFT, WIDTH - RIGHT);
    let y = Scale::over(points().map(|(_, y)| y), HEIGHT - BELOW, AROUND * 2.0);
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text class=\"axis\" x=\"4\" y=\"14\">{0}</text>",
        safe(&plot.title)
    );
    for tick in y.ticks(10.0).into_iter().chain(half_decades(&y)) {
        let at = y.at(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"axis\" \
             text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            (plot.shown)(tick)
        );
    }
    let base = if plot.over == Over::Bytes { 4.0 } else { 2.0 };
    for tick in x.ticks(base) {
        let text = if plot.over == Over::Bytes { size(tick) } else { format!("{tick:.0}") };
        let _ = writeln!(
            out,
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
            x.at(tick),
            HEIGHT - BELOW + 18.0
        );
    }
    for (n, (name, points)) in plot.lines.iter().enumerate() {
        let places: Vec<_> = points.iter().map(|(a, b)| format!("{:.1},{:.1}", x.at(*a), y.at(*b))).collect();
        let _ = write!(out, "<g class=\"s{n}\"><polyline points=\"{}\"/>", places.join(" "));
        for (a, b) in points {
            let at = if plot.over == Over::Bytes { size(*a) } else { format!("{a:.0} at once") };
            let _ = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}, {at}: {}</title></circle>",
                x.at(*a),
                y.at(*b),
                safe(name),
                (plot.shown)(*b)
            );
        }
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
}

/// Where a plot spans less than two powers of ten, their halves are named too.
fn half_decades(y: &Scale) -> Vec<f64> {
    if y.to - y.from > 2.0 * 10_f64.log2() {
        return Vec::new();
    }
    let all = (-3..12).flat_map(|power| [2.0, 5.0].map(|n| n * 10_f64.powi(power)));
    all.filter(|value| (y.from..=y.to).contains(&value.log2())).collect()
}

fn bars(out: &mut String, plot: &Plot<'_>) {
    let most = plot.lines.iter().flat_map(|(_, p)| p.iter().map(|(_, y)| *y)).fold(0.0, f64::max);
    let height = AROUND * 2.0 + 26.0 * float(plot.lines.len() as u64);
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><text class=\"axis\" x=\"4\" y=\"14\">{0}</text>",
        safe(&plot.title)
    );
    for (n, (_, points)) in plot.lines.iter().enumerate() {
        let value = points.first().map_or(0.0, |(_, y)| *y);
        let (top, wide) =
            (AROUND + 12.0 + 26.0 * float(n as u64), value / most.max(f64::MIN_POSITIVE) * (WIDTH - 110.0));
        let _ = writeln!(
            out,
            "<g class=\"s{n}\"><rect x=\"4\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"18\" rx=\"2\"/><text x=\"{:.1}\" \
             y=\"{:.1}\">{}</text></g>",
            wide + 10.0,
            top + 13.0,
            (plot.shown)(value)
        );
    }
    out.push_str("</svg>\n");
}

fn table(out: &mut String, group: &[&Figure]) {
    out.push_str("<details><summary>Figures</summary><table><tr><th>way</th><th>size</th><th>at once</th>");
    out.push_str("<th>in a second</th><th>bytes</th><th>median</th><th>99 of 100</th></tr>\n");
    for figure in group {
        let time = |us: f64| if us > 0.0 { micros(us) } else { "-".to_owned() };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            safe(&figure.way),
            bytes(figure.bytes),
            figure.at_once,
            number(figure.per_second),
            bytes_a_second(figure),
            time(figure.p50_us),
            time(figure.p99_us)
        );
    }
    out.push_str("</table></details>\n");
}

/// A size as the powers of two have it.
fn size(bytes: f64) -> String {
    if bytes >= 1_048_576.0 {
        format!("{:.0} MiB", bytes / 1_048_576.0)
    } else if bytes >= 1024.0 {
        format!("{:.0} KiB", bytes / 1024.0)
    } else {
        format!("{bytes:.0} B")
    }
}

/// A number in three digits or so.
#[must_use]
pub fn number(n: f64) -> String {
    match n {
        n if n >= 1e7 => format!("{:.0} M", n / 1e6),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.0} k", n / 1e3),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n if n >= 10.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

fn mega_bytes(rate: f64) -> String {
    if rate >= 1e9 {
        return format!("{:.1} GB/s", rate / 1e9);
    }
    let number = number(rate);
    let gap = if number.contains(' ') { "" } else { " " };
    format!("{number}{gap}B/s")
}

/// A time in the unit that suits it.
#[must_use]
pub fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e4 => format!("{:.0} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.1} ms", us / 1e3),
        us if us >= 10.0 => format!("{us:.0} us"),
        us => format!("{us:.1} us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(way: &str, bytes: u64, at_once: u64, per_second: f64) -> Figure {
        Figure {
            part: "disk".to_owned(),
            what: "write".to_owned(),
            way: way.to_owned(),
            bytes,
            at_once,
            per_second,
            p50_us: 100.0,
            p99_us: 200.0,
        }
    }

    #[test]
    fn a_page_has_a_plot_for_each_measurement_and_asks_nobody_for_anything() {
        let figures = vec![
            figure("dsync", 4096, 1, 9000.0),
            figure("dsync", 65536, 1, 4000.0),
            Figure { what: "depth".to_owned(), ..figure("dsync", 4096, 1, 9000.0) },
            Figure { what: "depth".to_owned(), ..figure("dsync", 4096, 8, 30000.0) },
            Figure { what: "ring".to_owned(), ..figure("plain", 4096, 1, 9000.0) },
        ];
        let text = page(&Report { figures, ..Report::default() });
        assert_eq!(text.matches("<svg").count(), 6);
        assert!(text.contains("Durable writes of 4 KiB, many at once"));
        for outside in ["http:", "https:", "<script", "url(", "@import", "src="] {
            assert!(!text.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_strangers_wrote_stays_text() {
        let figures = vec![figure("<img src=x onerror=alert(1)>", 1, 1, 1.0)];
        let text = page(&Report { figures, program: "\"><script>".to_owned(), ..Report::default() });
        assert!(!text.contains("<img") && !text.contains("<script"), "{text}");
    }

    #[test]
    fn any_figures_have_places_in_the_plot() {
        let extremes = [0.0, 1e-300, 1.0, 1e15];
        let figures = extremes.map(|rate| figure("a", 4096, 1, rate)).to_vec();
        let text = page(&Report { figures, ..Report::default() });
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let scale = Scale::over([10.0, 1000.0].into_iter(), 0.0, 100.0);
        assert_eq!((scale.at(10.0), scale.at(100.0).round(), scale.at(1000.0)), (0.0, 50.0, 100.0));
        assert_eq!(scale.ticks(10.0).iter().map(|t| t.round()).collect::<Vec<_>>(), [10.0, 100.0, 1000.0]);
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(
            (number(1234.0), number(9.5), number(65_000.0)),
            ("1.2 k".to_owned(), "9.5".to_owned(), "65 k".to_owned())
        );
        assert_eq!((mega_bytes(2e8), mega_bytes(50.0)), ("200 MB/s".to_owned(), "50 B/s".to_owned()));
        assert_eq!((micros(5.0), micros(2500.0)), ("5.0 us".to_owned(), "2.5 ms".to_owned()));
    }
}
