//! Redriving and dropping letters.
//!
//! Effect first: a letter is marked as settled when what was written for it is acknowledged. Interrupted in between,
//! it is redriven again the next time, and whoever reads it does what every stage does with a repetition: nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tollgate_log::{Acks, Log, Producer, ProducerRecord};
use tollgate_service::terminal::printable;
use tollgate_types::headers;

use super::Output;
use super::letters::{Filter, Letter, Redriven, for_each_open};

/// Letters that are on their way at the same time, at most.
const CHUNK: usize = 500;

/// What is done with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Redriven,
    Dropped,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// `tollgate dlq redrive` and `tollgate dlq drop`
pub(super) fn run(
    kafka: &Log,
    filter: &Filter,
    outcome: Outcome,
    rate: u32,
    dry_run: bool,
    output: Output<'_>,
) -> anyhow::Result<()> {
    let Output { out, progress } = output;
    let mut settler = Settler {
        kafka,
        producer: kafka.producer("tollgate")?,
        outcome,
        rate,
        begun: Instant::now(),
        chunk: Vec::new(),
        done: 0,
        unfit: 0,
        bar: progress.then(ProgressBar::new_spinner),
    };
    let mut would = 0_u64;
    for_each_open(kafka, filter, |letter| {
        let redriven = match outcome {
            Outcome::Redriven => letter.redriven(kafka),
            Outcome::Dropped => Ok(Redriven::AsItIs),
        };
        let redriven = match redriven {
            Ok(redriven) => redriven,
            Err(why) => {
                settler.unfit += 1;
                let why = printable(&why);
                return Ok(writeln!(out, "{}: not redriven: {why}", letter.id)?);
            }
        };
        if dry_run {
            would += 1;
            let user = letter.user().unwrap_or_default();
            let (kind, user) = (printable(letter.kind()), printable(&user));
            return Ok(writeln!(out, "{} {kind} {user}", letter.id)?);
        }
        settler.add(letter, redriven)
    })?;
    if dry_run {
        let (letters, outcome) = (letters(would), outcome.name());
        return Ok(writeln!(out, "{letters} would be {outcome}")?);
    }
    settler.flush()?;
    if let Some(bar) = &settler.bar {
        bar.finish_and_clear();
    }
    writeln!(out, "{} {}", letters(settler.done), outcome.name())?;
    anyhow::ensure!(
        settler.unfit == 0,
        "{} could not be redriven, as named above",
        letters(settler.unfit)
    );
    Ok(())
}

fn letters(count: u64) -> String {
    let letters = if count == 1 { "letter" } else { "letters" };
    format!("{count} {letters}")
}

struct Settler<'k> {
    kafka: &'k Log,
    producer: Producer,
    outcome: Outcome,
    rate: u32,
    begun: Instant,
    chunk: Vec<(Letter, Redriven)>,
    done: u64,
    unfit: u64,
    bar: Option<ProgressBar>,
}

impl Settler<'_> {
    fn add(&mut self, letter: Letter, redriven: Redriven) -> anyhow::Result<()> {
        self.chunk.push((letter, redriven));
        // At a tenth of a second's worth the rate is kept finely enough.
        let full = match self.rate {
            0 => CHUNK,
            rate => CHUNK.min((rate / 10).max(1) as usize),
        };
        if self.chunk.len() >= full {
            self.flush()?;
        }
        Ok(())
    }

    /// Settles what was collected, and waits until the rate allows more.
    fn flush(&mut self) -> anyhow::Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            return Ok(());
        }
        if self.outcome == Outcome::Redriven {
            self.write(&chunk, |(letter, redriven), acks| {
                self.redrive(letter, redriven, acks)
            })?;
        }
        self.write(&chunk, |(letter, _), acks| self.mark(letter, acks))?;
        self.done += chunk.len() as u64;
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {}", letters(self.done), self.outcome.name()));
            bar.tick();
        }
        if self.rate > 0 {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            let due = Duration::from_secs_f64(self.done as f64 / f64::from(self.rate));
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
        Ok(())
    }

    /// Writes the records for each letter, and waits for all acknowledgements.
    fn write(
        &self,
        chunk: &[(Letter, Redriven)],
        send: impl Fn(&(Letter, Redriven), &Arc<Acks>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (acks, acknowledged) = Acks::to_wait_for();
        let sent = chunk.iter().try_for_each(|letter| send(letter, &acks));
        acks.seal();
        sent?;
        Ok(acknowledged.recv()??)
    }

    fn redrive(
        &self,
        letter: &Letter,
        redriven: &Redriven,
        acks: &Arc<Acks>,
    ) -> anyhow::Result<()> {
        let topics = self.kafka.topics();
        let topic = topics.input_of(letter.id.stage());
        let from = format!(
            "{}/{}@{}",
            letter.record.topic, letter.id.partition, letter.id.offset
        );
        let mut all: Vec<(&str, Option<&[u8]>)> = letter
            .record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        all.push((headers::REDRIVEN_FROM, Some(from.as_bytes())));
        match redriven {
            Redriven::AsItIs => {
                let record = ProducerRecord {
                    key: letter.record.key.as_deref(),
                    headers: &all,
                    ..ProducerRecord::new(topic, &[], &letter.record.payload)
                };
                self.producer.send_waiting(&record, acks, || false)?;
            }
            Redriven::ReadAgain(transactions) => {
                // The payload is a transaction now, and the hash was of what was sent.
                let gone = [headers::PAYLOAD_FORMAT, headers::MAC];
                all.retain(|(name, _)| !gone.contains(name));
                for transaction in transactions {
                    let record = ProducerRecord {
                        headers: &all,
                        ..ProducerRecord::signed(
                            topic,
                            transaction.user_id.as_bytes(),
                            transaction.json.as_bytes(),
                        )
                    };
                    self.producer.send_waiting(&record, acks, || false)?;
                }
            }
        }
        Ok(())
    }

    fn mark(&self, letter: &Letter, acks: &Arc<Acks>) -> anyhow::Result<()> {
        let place = format!("{}@{}", letter.id.partition, letter.id.offset);
        let record = ProducerRecord {
            partition: Some(letter.id.partition),
            headers: &[
                (headers::SETTLED, Some(place.as_bytes())),
                (headers::SETTLED_AS, Some(self.outcome.name().as_bytes())),
            ],
            key: letter.record.key.as_deref(),
            ..ProducerRecord::new(&letter.record.topic, &[], &[])
        };
        Ok(self.producer.send_waiting(&record, acks, || false)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tollgate_log::{AuthenticationConfig, Claims, KafkaConfig, Origin, RejectedRow};
    use tollgate_types::{Tenant, Transaction};

    use super::*;

    fn row<'a>(payload: &'a [u8], format: &'a str) -> RejectedRow<'a> {
        RejectedRow {
            kind: "malformed",
            reason: "is wrong",
            key: None,
            payload,
            format,
            is_masked: false,
            cut_from: None,
            claims: Claims::default(),
            origin: Origin::Object {
                url: "file:///day.csv",
                line: 2,
            },
            under: None,
        }
    }

    fn format() -> String {
        json!({
            "format": "csv", "delimiter": ";", "decimal": ",", "grouping": ".",
            "header": ["transaction_id", "user_id", "timestamp", "amount"],
        })
        .to_string()
    }

    fn log() -> Log {
        Log::open(KafkaConfig {
            authentication: AuthenticationConfig::with_key("k", "0123456789abcdef0123456789abcdef"),
            ..KafkaConfig::default()
        })
        .unwrap()
    }

    fn write(log: &Log, rows: &[RejectedRow<'_>]) {
        let producer = log.producer("test").unwrap();
        let (acks, acknowledged) = Acks::to_wait_for();
        for row in rows {
            row.send(log, &producer, &acks, || false).unwrap();
        }
        acks.seal();
        acknowledged.recv().unwrap().unwrap();
    }

    fn redrive(log: &Log) -> (anyhow::Result<()>, String) {
        let mut out = Vec::new();
        let output = Output {
            out: &mut out,
            progress: false,
        };
        let ended = run(log, &Filter::default(), Outcome::Redriven, 0, false, output);
        (ended, String::from_utf8(out).unwrap())
    }

    /// The ids and amounts of the redriven transactions; each is one that the scorer believes.
    fn redriven(log: &Log) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let topic = &log.topics().transactions;
        let read = log.reader(&[topic]).unwrap().read_all(|record| {
            let kind = tollgate_types::TopicKind::Transactions;
            assert!(log.authenticate_owned(kind, &record).is_ok());
            assert_eq!(record.header(headers::PAYLOAD_FORMAT), None);
            let transaction = Transaction::parse(&record.payload).unwrap();
            assert_eq!(record.key.as_deref(), Some(transaction.user_id.as_bytes()));
            found.push((
                transaction.transaction_id.to_string(),
                transaction.amount.to_string(),
            ));
            anyhow::Ok(())
        });
        read.unwrap();
        found
    }

    /// Of a row with one thousands comma too many a payment of 1 was made, and approved.
    #[test]
    fn a_row_is_redriven_as_what_was_sent_and_one_that_is_none_is_refused_with_its_reason() {
        let log = log();
        let format = format();
        let claims = Claims {
            tenant: Tenant::parse("acme").unwrap(),
            ..Claims::default()
        };
        let rows = [
            &b"t1;u;2026-03-01T10:00:00Z;1;560,00"[..],
            b"t2;u;2026-03-01T10:00:00Z;1.560,00",
            b"t3;u\xff;2026-03-01T10:00:00Z;1",
        ];
        write(
            &log,
            &rows.map(|payload| RejectedRow {
                claims,
                ..row(payload, &format)
            }),
        );
        let (ended, out) = redrive(&log);
        assert!(ended.is_err());
        assert!(out.contains("not redriven: has 5 fields"), "{out}");
        assert!(out.contains("not redriven: user_id: is not UTF-8"), "{out}");
        assert!(out.contains("1 letter redriven"), "{out}");
        assert_eq!(redriven(&log), [("t2".to_owned(), "1560".to_owned())]);
    }

    #[test]
    fn what_was_cut_or_masked_or_has_an_unknown_format_is_refused() {
        let log = log();
        let format = format();
        let payload = b"t1;u;2026-03-01T10:00:00Z;1";
        write(
            &log,
            &[
                RejectedRow {
                    is_masked: true,
                    ..row(payload, &format)
                },
                RejectedRow {
                    cut_from: Some(1_000_000),
                    ..row(payload, &format)
                },
                row(payload, "{\"format\":\"unknown\"}"),
            ],
        );
        let (ended, out) = redrive(&log);
        assert!(ended.is_err());
        for reason in [
            "card data was taken out",
            "was cut to fit",
            "none that this version",
        ] {
            assert!(out.contains(reason), "{out}");
        }
        assert_eq!(redriven(&log), []);
    }
}
