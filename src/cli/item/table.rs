//! Items as rows of CSV and lines of JSON, and back.

use super::super::failure::Failure;
use csv::ByteRecord;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt::Write as _;

/// What a row's value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum As {
    /// A JSON object of the row's columns
    Json,
    /// The row as a line of CSV
    Csv,
    /// The column named value, as it is: what item export --csv writes
    Value,
}

/// The head of an exported table.
pub(super) const HEAD: [&[u8]; 2] = [b"id", b"value"];

/// How rows become items.
#[derive(Debug)]
pub(super) struct Columns {
    names: Vec<Vec<u8>>,
    id: usize,
    value: usize,
    form: As,
}

impl Columns {
    /// From the head of a table. `id` names a column or numbers it from 1; the first one unless given.
    pub(super) fn new(head: &ByteRecord, id: Option<&str>, form: Option<As>) -> Result<Self, Failure> {
        let names: Vec<Vec<u8>> = head.iter().map(<[u8]>::to_vec).collect();
        let exported = names.iter().map(Vec::as_slice).eq(HEAD);
        let form = form.unwrap_or(if exported { As::Value } else { As::Json });
        let find = |name: &[u8]| names.iter().position(|n| n.as_slice() == name);
        let shown = || names.iter().map(|n| super::escape(n)).collect::<Vec<_>>().join(", ");
        let id = match id {
            None => 0,
            Some(text) => find(text.as_bytes())
                .or_else(|| text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)))
                .filter(|&n| n < names.len())
                .ok_or_else(|| {
                    let message = format!("reading the head of the table: no column {text}");
                    Failure::error(message, format!("the columns are: {}", shown()))
                })?,
        };
        let value = find(b"value").unwrap_or(usize::MAX);
        if form == As::Value && value == usize::MAX {
            let next = format!("use --as json or --as csv; the columns are: {}", shown());
            return Err(Failure::error("reading the head of the table: no column value", next));
        }
        if form == As::Json {
            check_names(&names)?;
        }
        Ok(Self { names, id, value, form })
    }

    /// The item of a row: id and value; or why it is none.
    pub(super) fn item(&self, row: &ByteRecord) -> Result<(Vec<u8>, Vec<u8>), String> {
        let id = row.get(self.id).unwrap_or_default().to_vec();
        let value = match self.form {
            As::Value => row.get(self.value).unwrap_or_default().to_vec(),
            As::Csv => csv_line(row)?,
            As::Json => self.json(row)?,
        };
        Ok((id, value))
    }

    /// The columns in their order, all as text.
    fn json(&self, row: &ByteRecord) -> Result<Vec<u8>, String> {
        let mut object = String::from("{");
        for (name, field) in self.names.iter().zip(row) {
            let field = std::str::from_utf8(field)
                .map_err(|_| format!("column {} is not UTF-8: use --as csv", super::escape(name)))?;
            if object.len() > 1 {
                object.push(',');
            }
            let name = String::from_utf8_lossy(name);
            let _ = write!(object, "{}:{}", json_text(&name), json_text(field));
        }
        object.push('}');
        Ok(object.into_bytes())
    }
}

/// An object cannot hold two values of one name, and a name must be text.
fn check_names(names: &[Vec<u8>]) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    for name in names {
        let twice = !seen.insert(name);
        if twice || std::str::from_utf8(name).is_err() {
            let why = if twice { "appears twice" } else { "is not UTF-8" };
            let message = format!("reading the head of the table: column {} {why}", super::escape(name));
            return Err(Failure::error(message, "use --as csv, or give the columns names of their own"));
        }
    }
    Ok(())
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A row as one line of CSV, without the line end.
fn csv_line(row: &ByteRecord) -> Result<Vec<u8>, String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_byte_record(row).map_err(|e| e.to_string())?;
    let mut line = writer.into_inner().map_err(|e| e.to_string())?;
    line.pop();
    Ok(line)
}

/// An item as a line of JSON: text where it is UTF-8, hexadecimal digits where it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonItem {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_hex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl JsonItem {
    /// An item, or only its id.
    pub(super) fn new(id: &[u8], value: Option<&[u8]>) -> Self {
        let (id, id_hex) = text_or_hex(id);
        let (value, value_hex) = value.map(text_or_hex).unwrap_or_default();
        Self { id, id_hex, value, value_hex }
    }

    /// Id and value; or why it has none.
    pub(super) fn into_item(self) -> Result<(Vec<u8>, Vec<u8>), String> {
        Ok((one_of("id", self.id, self.id_hex)?, one_of("value", self.value, self.value_hex)?))
    }
}

fn text_or_hex(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => {
            let hex = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            (None, Some(hex))
        }
    }
}

fn one_of(what: &str, text: Option<String>, hex: Option<String>) -> Result<Vec<u8>, String> {
    match (text, hex) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(hex)) => from_hex(&hex).ok_or_else(|| format!("{what}_hex is not pairs of hex digits")),
        (None, None) => Err(format!("it has neither {what} nor {what}_hex")),
        (Some(_), Some(_)) => Err(format!("it has both {what} and {what}_hex")),
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8]) -> (ByteRecord, Vec<ByteRecord>) {
        let mut reader = csv::ReaderBuilder::new().from_reader(text);
        let head = reader.byte_headers().unwrap().clone();
        (head, reader.byte_records().map(Result::unwrap).collect())
    }

    #[test]
    fn a_row_becomes_a_json_object_with_its_columns_in_order() {
        let (head, rows) = rows(b"no,name,note\n7,\"Meier, \"\"K\"\"\",\n8,caf\xc3\xa9,a\\b\n");
        let columns = Columns::new(&head, None, None).unwrap();
        let (id, value) = columns.item(&rows[0]).unwrap();
        assert_eq!(id, b"7");
        assert_eq!(String::from_utf8(value).unwrap(), r#"{"no":"7","name":"Meier, \"K\"","note":""}"#);
        let (_, value) = columns.item(&rows[1]).unwrap();
        assert_eq!(String::from_utf8(value).unwrap(), "{\"no\":\"8\",\"name\":\"café\",\"note\":\"a\\\\b\"}");
    }

    #[test]
    fn the_id_column_is_named_or_numbered_from_one() {
        let (head, rows) = rows(b"a,2,b\nx,y,z\n");
        let id = |column| Columns::new(&head, Some(column), None).map(|c| c.item(&rows[0]).unwrap().0);
        assert_eq!(id("b").ok(), Some(b"z".to_vec()));
        assert_eq!(id("3").ok(), Some(b"z".to_vec()));
        assert_eq!(id("2").ok(), Some(b"y".to_vec()), "a name goes before a number");
        assert!(id("0").is_err());
        assert!(id("4").is_err());
        assert!(id("q").is_err());
    }

    #[test]
    fn a_row_as_csv_is_quoted_where_it_must_be() {
        let (head, rows) = rows(b"a,b\n1,\"x, \"\"y\"\"\nz\"\n");
        let columns = Columns::new(&head, None, Some(As::Csv)).unwrap();
        assert_eq!(columns.item(&rows[0]).unwrap().1, b"1,\"x, \"\"y\"\"\nz\"");
    }

    #[test]
    fn what_json_cannot_hold_is_refused_by_name() {
        let (head, rows) = rows(b"a,b\n1,\xff\n");
        let columns = Columns::new(&head, None, None).unwrap();
        assert!(columns.item(&rows[0]).unwrap_err().contains("column b"));
        let (twice, _) = self::rows(b"a,a\n1,2\n");
        assert!(Columns::new(&twice, None, None).unwrap_err().to_string().contains("twice"));
        assert!(Columns::new(&twice, None, Some(As::Csv)).is_ok());
        assert!(Columns::new(&twice, None, Some(As::Value)).is_err());
    }

    #[test]
    fn items_of_any_bytes_come_back_from_lines_of_json() {
        for (id, value) in [(&b"a"[..], &b""[..]), (b"\xff\x00", b"x\ny"), ("é".as_bytes(), b"\xc3")] {
            let line = serde_json::to_string(&JsonItem::new(id, Some(value))).unwrap();
            assert!(!line.contains('\n'));
            let back: JsonItem = serde_json::from_str(&line).unwrap();
            assert_eq!(back.into_item(), Ok((id.to_vec(), value.to_vec())));
        }
        for bad in [r#"{"id":"a"}"#, r#"{"value":"a"}"#, r#"{"id":"a","id_hex":"00","value":""}"#] {
            assert!(serde_json::from_str::<JsonItem>(bad).unwrap().into_item().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<JsonItem>(r#"{"id":"a","valeu":"b"}"#).is_err());
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("0"), None);
    }

    #[test]
    fn items_of_any_bytes_come_back_from_a_table() {
        let items = [(&b"a"[..], &b""[..]), (b"\xff\"\r\n,", b"x\ny\r"), (b" b ", b"\x00\"\"")];
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
        writer.write_record(HEAD).unwrap();
        items.iter().for_each(|(id, value)| writer.write_record([id, value]).unwrap());
        let text = writer.into_inner().unwrap();
        let (head, rows) = rows(&text);
        let columns = Columns::new(&head, None, None).unwrap();
        let back: Vec<_> = rows.iter().map(|row| columns.item(row).unwrap()).collect();
        assert!(back.iter().map(|(id, value)| (id.as_slice(), value.as_slice())).eq(items));
    }
}
