//! What the menu looks like, from 80 columns and 24 lines on.

use super::machine::{Machine, Output, Screen};
use crate::cli::out::visible;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws it all.
pub(super) fn draw(frame: &mut Frame<'_>, machine: &Machine) {
    let [top, middle, help, messages, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(5),
        Constraint::Length(2),
        Constraint::Length(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let title = format!(" hot-backup  {}", visible(&machine.node.text));
    let width = usize::from(top.width);
    frame.render_widget(Paragraph::new(format!("{title:<width$}")).style(REVERSED), top);
    let (text, hint) = match machine.screen() {
        Screen::Menu { .. } => (
            menu(frame, middle, machine),
            "1-9 or arrows, Enter choose   ^N next  ^B before   Esc ^X X back   Q quit",
        ),
        Screen::Form(_) => (
            form(frame, middle, machine),
            "^N next  ^B before   ^X or Enter on the last: carry out   Esc back",
        ),
        Screen::Output(output) => (
            shown(frame, middle, output),
            match (output.runs, &output.confirm) {
                (true, _) => "it runs: Esc stops it",
                (false, Some(_)) => "type what is asked for, then Enter   Esc back   arrows: read",
                (false, None) => "arrows, PgUp, PgDn: read   Enter or Esc back",
            },
        ),
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), help);
    let message = Paragraph::new(visible(&machine.message)).wrap(Wrap { trim: true });
    frame.render_widget(message.block(Block::bordered().title(" messages ")), messages);
    frame.render_widget(Paragraph::new(hint).style(REVERSED), keys);
}

/// A menu; gives back the help of the line that is marked.
fn menu(frame: &mut Frame<'_>, area: Rect, machine: &Machine) -> String {
    let Screen::Menu { menu, at } = machine.screen() else { return String::new() };
    let lines = menu.items.iter().enumerate().map(|(n, item)| {
        let absent = if machine.is_there(item) { "" } else { "  (not in this version)" };
        let text = format!("  {}. {}{absent}  ", (n + 1) % 10, item.label);
        Line::from(Span::styled(text, if n == *at { REVERSED } else { Style::new() }))
    });
    let block = Block::bordered().title(Span::styled(format!(" {} ", menu.title), BOLD));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
    menu.items.get(*at).map(|item| item.help.to_owned()).unwrap_or_default()
}

/// A form; gives back the help of the field that is filled in.
fn form(frame: &mut Frame<'_>, area: Rect, machine: &Machine) -> String {
    let Screen::Form(form) = machine.screen() else { return String::new() };
    let lines = form.verb.fields.iter().zip(&form.values).enumerate().map(|(n, (field, value))| {
        let mark = if n == form.at { "_" } else { "" };
        // Of a long value the end is seen, where it is typed.
        let room = usize::from(area.width).saturating_sub(20);
        let value: String =
            visible(value).chars().rev().take(room).collect::<Vec<_>>().into_iter().rev().collect();
        let style = if n == form.at { BOLD } else { Style::new() };
        Line::from(Span::styled(format!("  {:<12} {value}{mark}", field.label), style))
    });
    let block = Block::bordered().title(Span::styled(format!(" {} ", form.title), BOLD));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
    form.verb.fields.get(form.at).map(|field| field.help.to_owned()).unwrap_or_default()
}

/// What a command prints; gives back what is asked for.
fn shown(frame: &mut Frame<'_>, area: Rect, output: &Output) -> String {
    let room = usize::from(area.height).saturating_sub(2);
    // The end of what runs, the chosen part of what ended.
    let from = if output.runs { output.lines.len().saturating_sub(room) } else { output.from };
    // Nothing of a line is cut off: it may say what would be lost.
    let width = usize::from(area.width).saturating_sub(2).max(1);
    let rows = |line: &String| {
        let all: Vec<char> = visible(line).chars().collect();
        let rows: Vec<String> = all.chunks(width).map(|row| row.iter().collect()).collect();
        if rows.is_empty() { vec![String::new()] } else { rows }
    };
    let mut lines: Vec<Line<'_>> =
        output.lines.iter().skip(from).take(room).flat_map(rows).map(Line::from).collect();
    if output.runs {
        lines.drain(..lines.len().saturating_sub(room));
    }
    let block = Block::bordered().title(Span::styled(format!(" {} ", visible(&output.title)), BOLD));
    frame.render_widget(Paragraph::new(lines).block(block), area);
    match &output.confirm {
        Some(confirm) if !output.runs => {
            format!(
                "If that is what you want, type {} (the epoch, if it is a number): {}_",
                confirm.token, confirm.typed
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Key, Machine, NodeView};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn text(machine: &Machine, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, machine)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn machine() -> Machine {
        let mut machine = Machine::new(|verb| verb != "stats");
        machine.node = NodeView { text: "a  primary  serving  epoch 4".to_owned(), epoch: Some(4) };
        machine
    }

    #[test]
    fn all_of_every_menu_is_seen_on_80_columns_and_24_lines_and_on_more() {
        for (width, height) in [(80, 24), (132, 50)] {
            let mut menu = machine();
            let main = text(&menu, width, height);
            for words in [
                "hot-backup  a  primary  serving  epoch 4",
                " Hot backup ",
                "1. Status",
                "6. Statistics  (not in this version)",
                "9. Special operations",
                "Role, positions, lag",
                "messages",
                "Q quit",
            ] {
                assert!(main.contains(words), "{words}\n{main}");
            }
            menu.key(Key::Char('9'));
            let special = text(&menu, width, height);
            assert!(special.contains("2. Takeover") && special.contains("0. Scrub"), "{special}");
        }
    }

    #[test]
    fn the_help_of_a_field_and_the_question_for_the_epoch_are_seen_and_foreign_text_is_harmless() {
        let mut menu = machine();
        menu.key(Key::Char('2'));
        "app,orders".chars().for_each(|c| drop(menu.key(Key::Char(c))));
        let form = text(&menu, 80, 24);
        assert!(
            form.contains("File         app,orders_") && form.contains("The file, as account,file."),
            "{form}"
        );
        let mut menu = machine();
        menu.key(Key::Char('9'));
        menu.key(Key::Char('2'));
        menu.said("one \u{1b}[31m line".to_owned());
        menu.said(format!("{}and what is lost", "long ".repeat(30)));
        menu.ended(Some(0));
        let confirm = text(&menu, 80, 24);
        assert!(confirm.contains("type 4 (the epoch"), "{confirm}");
        // A long line goes on in the next one.
        let lines: Vec<&str> = confirm.lines().map(|line| line.trim_matches('│')).collect();
        assert!(lines.concat().contains("what is lost"), "{confirm}");
        assert!(confirm.contains("one \\x1b[31m line"), "{confirm}");
    }

    #[test]
    fn a_terminal_that_is_too_small_is_no_reason_to_fall() {
        for (width, height) in [(1, 1), (20, 5), (80, 3)] {
            text(&machine(), width, height);
        }
    }
}
