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
use super::letters::{Filter, Letter, for_each_open};

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
        if let (Outcome::Redriven, Some(why)) = (outcome, letter.unfit()) {
            settler.unfit += 1;
            let why = printable(&why);
            return Ok(writeln!(out, "{}: not redriven: {why}", letter.id)?);
        }
        if dry_run {
            would += 1;
            let user = letter.user().unwrap_or_default();
            let (kind, user) = (printable(letter.kind()), printable(&user));
            return Ok(writeln!(out, "{} {kind} {user}", letter.id)?);
        }
        settler.add(letter)
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
    chunk: Vec<Letter>,
    done: u64,
    unfit: u64,
    bar: Option<ProgressBar>,
}

impl Settler<'_> {
    fn add(&mut self, letter: Letter) -> anyhow::Result<()> {
        self.chunk.push(letter);
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
            self.write(&chunk, |letter, acks| self.redrive(letter, acks))?;
        }
        self.write(&chunk, |letter, acks| self.mark(letter, acks))?;
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

    /// Writes one record for each letter, and waits for all acknowledgements.
    fn write(
        &self,
        chunk: &[Letter],
        send: impl Fn(&Letter, &Arc<Acks>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (acks, acknowledged) = Acks::to_wait_for();
        let sent = chunk.iter().try_for_each(|letter| send(letter, &acks));
        acks.seal();
        sent?;
        Ok(acknowledged.recv()??)
    }

    fn redrive(&self, letter: &Letter, acks: &Arc<Acks>) -> anyhow::Result<()> {
        let topics = self.kafka.topics();
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
        let record = ProducerRecord {
            key: letter.record.key.as_deref(),
            headers: &all,
            ..ProducerRecord::new(
                topics.input_of(letter.id.stage()),
                &[],
                &letter.record.payload,
            )
        };
        Ok(self.producer.send_waiting(&record, acks, || false)?)
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
