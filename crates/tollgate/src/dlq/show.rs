//! Open letters as a person or a program reads them.

use std::io::Write;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde_json::json;
use tollgate_log::Log;
use tollgate_service::terminal::{printable, printable_lines};

use super::letters::{Filter, Letter, LetterId, for_each_open};
use super::of_users::{Share, share_of};
use crate::archive::{entry, text_or_base64};

/// `tollgate dlq list`
pub(super) fn list(
    kafka: &Log,
    filter: &Filter,
    json: bool,
    limit: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "letter",
        "failed at",
        "times",
        "kind",
        "user",
        "reason",
    ]);
    let mut count = 0;
    for_each_open(kafka, filter, |letter| {
        count += 1;
        if limit > 0 && count > limit {
            return Ok(());
        }
        if json {
            return Ok(writeln!(out, "{}", summary(&letter))?);
        }
        let failures = letter.failures();
        let last = failures.last();
        table.add_row([
            letter.id.to_string(),
            last.map(|last| printable(&last.failed_at).into_owned())
                .unwrap_or_default(),
            failures.len().to_string(),
            printable(letter.kind()).into_owned(),
            printable(&letter.user().unwrap_or_default()).into_owned(),
            last.map(|last| printable(&last.reason).into_owned())
                .unwrap_or_default(),
        ]);
        Ok(())
    })?;
    if json {
        return Ok(());
    }
    if count == 0 {
        return Ok(writeln!(out, "no open dead letters")?);
    }
    writeln!(out, "{table}")?;
    if limit > 0 && count > limit {
        return Ok(writeln!(
            out,
            "the first {limit} of {count}; --limit 0 shows all"
        )?);
    }
    Ok(writeln!(out, "{count} open")?)
}

fn summary(letter: &Letter) -> serde_json::Value {
    let failures: Vec<_> = letter
        .failures()
        .into_iter()
        .map(|failure| {
            json!({
                "kind": failure.kind,
                "reason": failure.reason,
                "attempts": failure.attempts,
                "failed_at": failure.failed_at,
                "source": failure.source,
            })
        })
        .collect();
    json!({
        "letter": letter.id.to_string(),
        "stage": letter.id.service.name(),
        "kind": letter.kind(),
        "user_id": letter.user(),
        "failures": failures,
        "bytes": letter.record.payload.len(),
    })
}

/// `tollgate dlq export`: as in the archive of dead letters, with the name of the letter and its source.
pub(super) fn export(kafka: &Log, filter: &Filter, out: &mut dyn Write) -> anyhow::Result<()> {
    for_each_open(kafka, filter, |mut letter| {
        if !filter.users.is_empty() {
            // What is of other users is not theirs to see.
            let record = &letter.record;
            let share = share_of(&record.payload, record.key.as_deref(), &filter.users);
            if let Share::Part { theirs, .. } = share {
                letter.record.payload = theirs;
            }
        }
        let data = entry(&letter.record);
        let source = format!("dead letter {}", letter.id);
        Ok(writeln!(
            out,
            "{}",
            json!({ "source": source, "data": data })
        )?)
    })
}

/// `tollgate dlq show`
pub(super) fn one(kafka: &Log, id: LetterId, raw: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let filter = Filter {
        ids: vec![id],
        ..Filter::default()
    };
    let mut found = None;
    for_each_open(kafka, &filter, |letter| {
        found = Some(letter);
        Ok(())
    })?;
    let letter = found.with_context(|| {
        format!("there is no open letter {id}: it was settled, or never was; `tollgate dlq list` shows those that are")
    })?;
    if raw {
        return Ok(out.write_all(&letter.record.payload)?);
    }
    let text = |bytes: &[u8]| match text_or_base64(bytes) {
        (value, false) => printable_lines(value.as_str().unwrap_or_default()).into_owned(),
        (value, true) => format!("{} (base64)", value.as_str().unwrap_or_default()),
    };
    writeln!(out, "letter   {id}")?;
    for failure in letter.failures() {
        let line = format!(
            "{} {}: {}, at attempt {}; read from {}",
            failure.failed_at, failure.kind, failure.reason, failure.attempts, failure.source
        );
        writeln!(out, "failed   {}", printable(&line))?;
    }
    if let Err(why) = letter.redriven(kafka) {
        writeln!(out, "cannot be redriven: {}", printable(&why))?;
    }
    let key = letter.record.key.as_deref();
    writeln!(
        out,
        "key      {}",
        key.map_or_else(|| "none".to_owned(), text)
    )?;
    for (name, value) in &letter.record.headers {
        let value = value.as_deref().map_or_else(|| "none".to_owned(), text);
        writeln!(out, "header   {}: {value}", printable(name))?;
    }
    Ok(writeln!(
        out,
        "payload  {} bytes\n{}",
        letter.record.payload.len(),
        text(&letter.record.payload)
    )?)
}
