//! Decisions to send.

/// A decision as the scorer writes it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) user: String,
    pub(crate) id: String,
    pub(crate) amount: String,
    pub(crate) time: String,
    pub(crate) score: f64,
    pub(crate) status: &'static str,
    pub(crate) indicators: &'static [&'static str],
    /// Further members of the transaction: `,"name":value`.
    pub(crate) more: String,
}

impl Sample {
    pub(crate) fn new(user: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            id: id.into(),
            amount: "12.5".into(),
            time: "2026-03-01T12:00:00Z".into(),
            score: 0.0,
            status: "approved",
            indicators: &[],
            more: String::new(),
        }
    }

    pub(crate) fn at(mut self, time: impl Into<String>) -> Self {
        self.time = time.into();
        self
    }

    pub(crate) fn alert(
        mut self,
        status: &'static str,
        score: f64,
        indicators: &'static [&'static str],
    ) -> Self {
        (self.status, self.score, self.indicators) = (status, score, indicators);
        self
    }

    pub(crate) fn transaction(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        format!(
            r#"{{"transaction_id":{},"user_id":{},"amount":{},"timestamp":"{}"{}}}"#,
            quoted(&self.id),
            quoted(&self.user),
            self.amount,
            self.time,
            self.more
        )
    }

    /// Members in the order in which the service returns them, so that texts can be compared.
    pub(crate) fn decision(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let contributions: Vec<String> = self
            .indicators
            .iter()
            .map(|name| format!(r#"{{"indicator":"{name}","points":17.3,"amount":"1000.25"}}"#))
            .collect();
        format!(
            r#"{{"transaction_id":{},"user_id":{},"fraud_score":{:?},"fraud_indicators":{},"status":"{}","processed_at":"2026-03-01T12:00:01.000001Z","contributions":[{}],"ruleset_version":"r-1","late":false,"duplicate":false,"transaction":{}}}"#,
            quoted(&self.id),
            quoted(&self.user),
            self.score,
            serde_json::to_string(self.indicators).unwrap(),
            self.status,
            contributions.join(","),
            self.transaction()
        )
    }
}
