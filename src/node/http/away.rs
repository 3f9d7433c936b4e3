//! What the page shows of places beside the node: the spool, and reels of tape that people are waited for to bring.

use super::page::{progress, seconds, utc};
use crate::base::shown::{bytes, count, counted, safe};
use crate::engine::admin::SpoolView;
use crate::node::tape::Request;
use std::fmt::Write as _;

/// Both.
pub(super) fn away(spool: &SpoolView, requests: &[Request]) -> String {
    format!("<h2>Spool and tape</h2>{}{}", spooling(spool), waited_for(requests))
}

fn spooling(spool: &SpoolView) -> String {
    if ["off", ""].contains(&spool.state.as_str()) {
        return "<p>No spool: what the peer lacks stays in the journal.</p>".to_owned();
    }
    let class = match spool.state.as_str() {
        "full" | "failed" => "bad",
        "holding" | "copying" => "odd",
        _ => "good",
    };
    let mut out = format!(
        "<p><strong class=\"{class}\">{}</strong> {}, {}</p>",
        safe(&spool.state),
        safe(&spool.place),
        safe(&spool.mode)
    );
    let held = match spool.parts {
        0 => "Nothing on the spool".to_owned(),
        parts => format!(
            "On the spool: {} in {}, entries {} to {}",
            bytes(spool.bytes),
            counted(parts, "part", "parts"),
            count(spool.from),
            count(spool.to)
        ),
    };
    // Without a limit of its own, all that its disk has left is its.
    let limit = if spool.limit_bytes > 0 { spool.limit_bytes } else { spool.bytes + spool.free_bytes };
    out += &progress(spool.bytes, limit, &format!("{held}; of {}", bytes(limit)));
    let _ = match spool.seconds_left {
        Some(left) => write!(
            out,
            "<p class=\"odd\">Full in about <strong>{}</strong> at {} a second, then: {}</p>",
            seconds(left),
            bytes(spool.rate),
            safe(&spool.when_full)
        ),
        None => {
            write!(out, "<p>Room for {} with the journal; it does not fill now.</p>", bytes(spool.room_bytes))
        }
    };
    if spool.strays > 0 {
        let strays = counted(spool.strays, "part", "parts");
        let _ = write!(out, "<p class=\"odd\">{strays} of another history, neither used nor removed.</p>");
    }
    out
}

fn waited_for(requests: &[Request]) -> String {
    if requests.is_empty() {
        return "<p>No reel is waited for.</p>".to_owned();
    }
    let mut out = "<ul class=\"incidents\">".to_owned();
    for request in requests {
        let refused = request.refused.as_ref();
        let refused =
            refused.map_or_else(String::new, |why| format!("; the reel there is not taken: {}", safe(why)));
        let _ = write!(
            out,
            "<li class=\"odd\"><time>{}</time> <strong>bring {}</strong> to {}, {}: {}{refused}</li>",
            utc(request.since_ms),
            safe(&request.wanted),
            safe(&request.place),
            safe(&request.purpose),
            safe(&request.why)
        );
    }
    out + "</ul>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding() -> SpoolView {
        SpoolView {
            state: "holding".into(),
            place: "file:/spool".into(),
            mode: "auto".into(),
            when_full: "drop-peer".into(),
            parts: 3,
            bytes: 192 << 20,
            limit_bytes: 1 << 30,
            from: 1000,
            to: 90_000,
            rate: 1 << 20,
            room_bytes: 832 << 20,
            seconds_left: Some(832.0),
            ..SpoolView::default()
        }
    }

    #[test]
    fn a_spool_shows_its_state_what_it_holds_and_when_it_is_full() {
        let html = away(&holding(), &[]);
        for text in
            ["holding", "file:/spool", "3 parts", "1,000 to 90,000", "Full in about", "14 min", "drop-peer"]
        {
            assert!(html.contains(text), "{text} in {html}");
        }
        assert!(html.contains("<progress max=\"1073741824\" value=\"201326592\">"), "{html}");
        let idle =
            SpoolView { seconds_left: None, strays: 2, limit_bytes: 0, free_bytes: 1 << 30, ..holding() };
        let html = away(&idle, &[]);
        assert!(html.contains("does not fill now") && html.contains("2 parts of another history"), "{html}");
        assert!(away(&SpoolView::default(), &[]).contains("No spool"));
        let full = SpoolView { state: "full".into(), ..holding() };
        assert!(away(&full, &[]).contains("class=\"bad\">full"));
    }

    #[test]
    fn a_reel_that_is_waited_for_is_named_and_texts_of_others_stay_texts() {
        let evil = || "<img src=x onerror=alert(1)>".to_owned();
        let request = Request {
            number: 1,
            place: "/dev/nst0".into(),
            wanted: "reel 2 of night".into(),
            purpose: "write".into(),
            why: evil(),
            refused: Some(evil()),
            since_ms: 0,
            pid: 1,
        };
        let spool = SpoolView { place: evil(), state: evil(), when_full: evil(), mode: evil(), ..holding() };
        let html = away(&spool, &[request]);
        assert!(html.contains("bring reel 2 of night</strong> to /dev/nst0, write"), "{html}");
        assert!(!html.contains("<img"), "{html}");
    }
}
