//! The menu without its terminal: keys come in, what is shown and what is to be done comes out.

use super::table::{Choice, Item, MAIN, Menu, Verb};
use crate::base::limits::{MENU_FIELD_MAX, MENU_LINES_MAX};

/// A key, as far as the menu knows any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Enter,
    Back,
    Rubout,
    /// Ctrl-N, as D3: the next one.
    Next,
    /// Ctrl-B, as D3: the one before.
    Before,
    /// Ctrl-X, as D3: leave; in a form, carry out.
    Leave,
    Char(char),
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Run this command of the program on the node; its output comes to [`Machine::said`] and [`Machine::ended`].
    Run(Vec<String>),
    /// End the command that runs.
    Stop,
    /// Leave the menu.
    Quit,
}

/// A form: what a command needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) title: &'static str,
    pub(super) verb: &'static Verb,
    pub(super) values: Vec<String>,
    pub(super) at: usize,
}

/// What a command prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    /// The first line shown.
    pub(super) from: usize,
    pub(super) runs: bool,
    /// What has to be typed before this is carried out, and what was.
    pub(super) confirm: Option<Confirm>,
}

/// A choice that may lose something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Confirm {
    pub(super) words: Vec<String>,
    /// The epoch, or a word where no node runs.
    pub(super) token: String,
    pub(super) typed: String,
}

/// What is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Menu { menu: &'static Menu, at: usize },
    Form(Form),
    Output(Output),
}

/// What is known of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeView {
    /// For the first line.
    pub(super) text: String,
    /// Its epoch, if it runs.
    pub(super) epoch: Option<u64>,
}

/// The menu.
pub(super) struct Machine {
    screens: Vec<Screen>,
    pub(super) message: String,
    pub(super) node: NodeView,
    /// Whether this program has a command.
    has: fn(&str) -> bool,
}

impl Machine {
    pub(super) fn new(has: fn(&str) -> bool) -> Self {
        let main = Screen::Menu { menu: &MAIN, at: 0 };
        Self { screens: vec![main], message: String::new(), node: NodeView::default(), has }
    }

    /// What is shown.
    pub(super) fn screen(&self) -> &Screen {
        self.screens.last().expect("the main menu stays")
    }

    fn screen_mut(&mut self) -> &mut Screen {
        self.screens.last_mut().expect("the main menu stays")
    }

    /// Whether an item leads to a command that this program has.
    pub(super) fn is_there(&self, item: &Item) -> bool {
        match item.choice {
            Choice::Open(_) => true,
            Choice::Run(verb) => verb.words.first().is_some_and(|word| (self.has)(word)),
        }
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: Key) -> Option<Act> {
        match self.screen_mut() {
            Screen::Menu { menu, at } => {
                let (menu, last) = (*menu, menu.items.len() - 1);
                match key {
                    Key::Down | Key::Next => *at = if *at == last { 0 } else { *at + 1 },
                    Key::Up | Key::Before => *at = if *at == 0 { last } else { *at - 1 },
                    Key::PageUp => *at = 0,
                    Key::PageDown => *at = last,
                    Key::Enter => {
                        let at = *at;
                        return self.choose(menu, at);
                    }
                    Key::Char(c @ '0'..='9') => {
                        // 1 to 9, and 0 for the tenth.
                        let chosen = (c as usize - '0' as usize + 9) % 10;
                        if chosen > last {
                            self.message = format!("there is no choice {c}");
                            return None;
                        }
                        *at = chosen;
                        return self.choose(menu, chosen);
                    }
                    Key::Char('q' | 'Q') => return Some(Act::Quit),
                    Key::Char('x' | 'X') | Key::Leave | Key::Back => return self.back(),
                    Key::Char(_) | Key::Rubout => {
                        self.message = "choose by a digit, or by arrows and Enter".to_owned()
                    }
                }
                None
            }
            Screen::Form(_) => self.form_key(key),
            Screen::Output(_) => self.output_key(key),
        }
    }

    fn back(&mut self) -> Option<Act> {
        self.message.clear();
        if self.screens.len() == 1 {
            return Some(Act::Quit);
        }
        self.screens.pop();
        None
    }

    fn choose(&mut self, menu: &'static Menu, at: usize) -> Option<Act> {
        self.message.clear();
        let item = menu.items.get(at)?;
        match item.choice {
            Choice::Open(menu) => {
                self.screens.push(Screen::Menu { menu, at: 0 });
                None
            }
            Choice::Run(_) if !self.is_there(item) => {
                self.message = format!("{} is not in this version of hot-backup", item.label);
                None
            }
            Choice::Run(verb) if verb.fields.is_empty() => self.begin(item.label, verb, &[]),
            Choice::Run(verb) => {
                let values = vec![String::new(); verb.fields.len()];
                self.screens.push(Screen::Form(Form { title: item.label, verb, values, at: 0 }));
                None
            }
        }
    }

    fn form_key(&mut self, key: Key) -> Option<Act> {
        let Screen::Form(form) = self.screen_mut() else { return None };
        let last = form.values.len() - 1;
        match key {
            Key::Up | Key::Before => form.at = form.at.saturating_sub(1),
            Key::Down | Key::Next => form.at = (form.at + 1).min(last),
            Key::Enter if form.at < last => form.at += 1,
            Key::Enter | Key::Leave => {
                let missing = form
                    .verb
                    .fields
                    .iter()
                    .zip(&form.values)
                    .position(|(field, value)| !field.optional && value.trim().is_empty());
                if let Some(at) = missing {
                    form.at = at;
                    self.message = format!("{} has to be given", self.missing(at));
                    return None;
                }
                let form = form.clone();
                self.screens.pop();
                return self.begin(form.title, form.verb, &form.values);
            }
            Key::Back => return self.back(),
            Key::Rubout => {
                if let Some(value) = form.values.get_mut(form.at) {
                    value.pop();
                }
            }
            Key::Char(c) if !c.is_control() => {
                if let Some(value) = form.values.get_mut(form.at).filter(|value| value.len() < MENU_FIELD_MAX)
                {
                    value.push(c);
                }
            }
            Key::PageUp | Key::PageDown | Key::Char(_) => {}
        }
        None
    }

    fn missing(&self, at: usize) -> &'static str {
        match self.screen() {
            Screen::Form(form) => form.verb.fields.get(at).map_or("", |field| field.label),
            _ => "",
        }
    }

    /// The command of a verb, or first what would be lost by it.
    fn begin(&mut self, title: &'static str, verb: &'static Verb, values: &[String]) -> Option<Act> {
        let line = |words: &[&str]| {
            let mut line: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            for (field, value) in verb.fields.iter().zip(values).filter(|(_, value)| !value.trim().is_empty())
            {
                let value = value.trim().to_owned();
                // What begins with a dash is a value too.
                line.push(if field.flag.is_empty() { value } else { format!("{}={value}", field.flag) });
            }
            line
        };
        let (shown, confirm) = match verb.preview {
            Some(preview) => {
                let token = self.node.epoch.map_or_else(|| "yes".to_owned(), |epoch| epoch.to_string());
                (line(preview), Some(Confirm { words: line(verb.words), token, typed: String::new() }))
            }
            None => (line(verb.words), None),
        };
        let title = if confirm.is_some() { format!("{title}: what it would do") } else { title.to_owned() };
        self.screens.push(Screen::Output(Output { title, runs: true, confirm, ..Output::default() }));
        Some(Act::Run(shown))
    }

    fn output_key(&mut self, key: Key) -> Option<Act> {
        let Screen::Output(output) = self.screen_mut() else { return None };
        let last = output.lines.len().saturating_sub(1);
        match key {
            Key::Up | Key::Before => output.from = output.from.saturating_sub(1),
            Key::Down | Key::Next => output.from = (output.from + 1).min(last),
            Key::PageUp => output.from = output.from.saturating_sub(10),
            Key::PageDown => output.from = (output.from + 10).min(last),
            Key::Back | Key::Leave if output.runs => return Some(Act::Stop),
            Key::Back | Key::Leave => return self.back(),
            Key::Enter if output.runs => {}
            Key::Enter => match output.confirm.take() {
                None => return self.back(),
                Some(confirm) if confirm.typed == confirm.token => {
                    let words = confirm.words;
                    *output = Output { title: words.join(" "), runs: true, ..Output::default() };
                    return Some(Act::Run(words));
                }
                Some(confirm) => {
                    self.back();
                    self.message = format!(
                        "nothing was done: {} was not typed, which stands for what was shown",
                        confirm.token
                    );
                }
            },
            Key::Rubout => {
                if let Some(confirm) = &mut output.confirm {
                    confirm.typed.pop();
                }
            }
            Key::Char(c) => match &mut output.confirm {
                Some(confirm)
                    if !output.runs && c.is_ascii_graphic() && confirm.typed.len() < MENU_FIELD_MAX =>
                {
                    confirm.typed.push(c);
                }
                None if !output.runs && matches!(c, 'x' | 'X' | 'q' | 'Q') => return self.back(),
                _ => {}
            },
        }
        None
    }

    /// The command printed a line.
    pub(super) fn said(&mut self, line: String) {
        if let Screen::Output(output) = self.screen_mut() {
            if output.lines.len() == MENU_LINES_MAX {
                output.lines.remove(0);
            }
            output.lines.push(line);
        }
    }

    /// The command ended: with this exit code, or by a signal.
    pub(super) fn ended(&mut self, code: Option<i32>) {
        let Screen::Output(output) = self.screen_mut() else { return };
        output.runs = false;
        // What cannot be done now is not asked for: only a preview that says yes is.
        if output.confirm.is_some() && code != Some(0) {
            output.confirm = None;
        }
        self.message = match code {
            Some(0) => "done".to_owned(),
            Some(1) => "the answer is no: see above".to_owned(),
            Some(code) => format!("it failed (exit code {code}): see above"),
            None => "it was stopped".to_owned(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn machine() -> Machine {
        let mut machine = Machine::new(|verb| !matches!(verb, "stats" | "tape"));
        machine.node = NodeView { text: "a primary serving".to_owned(), epoch: Some(1_000_003) };
        machine
    }

    fn types(machine: &mut Machine, text: &str) {
        for c in text.chars() {
            assert_eq!(machine.key(Key::Char(c)), None);
        }
    }

    fn title(machine: &Machine) -> String {
        match machine.screen() {
            Screen::Menu { menu, .. } => menu.title.to_owned(),
            Screen::Form(form) => form.title.to_owned(),
            Screen::Output(output) => output.title.clone(),
        }
    }

    fn run(act: Option<Act>) -> String {
        match act {
            Some(Act::Run(words)) => words.join(" "),
            other => panic!("it runs nothing: {other:?}"),
        }
    }

    #[test]
    fn digits_arrows_and_the_keys_of_d3_lead_through_the_menus_and_out() {
        let mut menu = machine();
        assert_eq!(run(menu.key(Key::Char('1'))), "status");
        menu.said("all is well".to_owned());
        menu.ended(Some(0));
        assert_eq!(menu.message, "done");
        assert_eq!(menu.key(Key::Enter), None);
        for (keys, expected) in [
            (&[Key::Char('9')][..], "Special operations"),
            (&[Key::Leave], "Hot backup"),
            (&[Key::Up, Key::Enter], "Transaction log"),
            (&[Key::Char('x')], "Hot backup"),
            (&[Key::Next, Key::Next, Key::Next, Key::Next, Key::Enter], "Start"),
            (&[Key::Back], "Hot backup"),
            (&[Key::Before, Key::Before, Key::Before, Key::PageDown, Key::Enter], "Special operations"),
        ] {
            for key in keys {
                assert_eq!(menu.key(*key), None);
            }
            assert_eq!(title(&menu), expected, "{keys:?}");
        }
        assert_eq!(menu.key(Key::Char('Q')), Some(Act::Quit));
        menu.key(Key::Back);
        assert_eq!(menu.key(Key::Char('0')), None);
        assert_eq!(menu.message, "there is no choice 0");
        assert_eq!(menu.key(Key::Char('X')), Some(Act::Quit), "the main menu is left");
    }

    #[test]
    fn what_this_version_has_not_is_said() {
        let mut menu = machine();
        assert_eq!(menu.key(Key::Char('6')), None);
        assert_eq!(
            (title(&menu).as_str(), menu.message.as_str()),
            ("Hot backup", "Statistics is not in this version of hot-backup")
        );
    }

    #[test]
    fn a_form_asks_for_what_a_command_needs_and_names_what_is_missing() {
        let mut menu = machine();
        menu.key(Key::Char('2'));
        assert_eq!(title(&menu), "Query");
        types(&mut menu, "app,ordx");
        menu.key(Key::Rubout);
        types(&mut menu, "ers");
        assert_eq!(menu.key(Key::Leave), None);
        assert_eq!(menu.message, "Item has to be given");
        types(&mut menu, "10 Q");
        assert_eq!(run(menu.key(Key::Enter)), "item get app,orders 10 Q");
        let Screen::Output(output) = menu.screen() else { panic!("output") };
        assert!(output.runs && output.confirm.is_none());
        assert_eq!(menu.key(Key::Back), Some(Act::Stop), "Esc ends what runs");
        menu.ended(None);
        assert_eq!(menu.message, "it was stopped");
        menu.key(Key::Back);
        assert_eq!(title(&menu), "Hot backup");
        // What is optional is left out, what is a flag is one word with its value.
        menu.key(Key::Char('9'));
        menu.key(Key::Char('7'));
        assert_eq!(run(menu.key(Key::Enter)), "compare");
        menu.ended(Some(0));
        menu.key(Key::Enter);
        menu.key(Key::Char('5'));
        types(&mut menu, "file:x y");
        assert_eq!(run(menu.key(Key::Enter)), "save --to=file:x y");
    }

    #[test]
    fn what_may_lose_something_shows_what_and_wants_the_epoch_to_be_typed() {
        let takeover = |typed: &str, preview: Option<i32>| {
            let mut menu = machine();
            menu.key(Key::Char('9'));
            assert_eq!(run(menu.key(Key::Char('2'))), "takeover --peer-is-down --dry-run");
            // Too early: what it would do is not shown yet.
            types(&mut menu, "1000003");
            menu.said("3 updates may be lost".to_owned());
            menu.ended(preview);
            types(&mut menu, typed);
            (menu.key(Key::Enter), menu)
        };
        let (act, menu) = takeover("1000003", Some(0));
        assert_eq!(run(act), "takeover --peer-is-down");
        let Screen::Output(output) = menu.screen() else { panic!("output") };
        assert!(output.runs && output.confirm.is_none() && output.lines.is_empty());
        for typed in ["", "1000004", "10000033", "yes"] {
            let (act, menu) = takeover(typed, Some(0));
            assert_eq!((act, title(&menu).as_str()), (None, "Special operations"), "{typed}");
            assert!(menu.message.starts_with("nothing was done: 1000003 was not typed"), "{}", menu.message);
        }
        // A preview that says no is the end of it.
        let (act, menu) = takeover("1000003", Some(1));
        assert_eq!((act, title(&menu).as_str()), (None, "Special operations"));
        // Every such choice has a preview.
        for (menu_digit, digit) in [('3', '2'), ('4', '1'), ('9', '3'), ('9', '4')] {
            let mut menu = machine();
            menu.key(Key::Char(menu_digit));
            menu.key(Key::Char(digit));
            let Screen::Output(output) = menu.screen() else { panic!("output") };
            assert!(output.confirm.is_some(), "{menu_digit} {digit}");
        }
    }

    #[test]
    fn output_is_bounded_and_can_be_read_line_by_line() {
        let mut menu = machine();
        menu.key(Key::Char('1'));
        for n in 0..MENU_LINES_MAX + 5 {
            menu.said(n.to_string());
        }
        menu.ended(Some(0));
        for key in [Key::Down, Key::PageDown, Key::Up] {
            menu.key(key);
        }
        let Screen::Output(output) = menu.screen() else { panic!("output") };
        assert_eq!((output.lines.len(), output.lines[0].as_str(), output.from), (MENU_LINES_MAX, "5", 10));
    }
}
