//! The application writes nothing while its database is replaced: `POST /hold` on the private network.
//!
//! It does so for as long as the answer lasts: it ends with this process, or this machine, and the application goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Response;
use tokio::time::timeout;

/// How long an application may take to stop writing: as long as a batch of clicks.
const STOP: Duration = Duration::from_secs(15);

/// Dropped, it lets the application go on.
pub(crate) struct Hold {
    of: String,
    answer: Response,
}

impl Hold {
    /// Returns once the application writes nothing any more.
    pub(crate) async fn begin(application: &str) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        let asked = async {
            let mut answer = client.post(format!("{application}/hold")).send().await?.error_for_status()?;
            let begun = answer.chunk().await?;
            Ok::<_, reqwest::Error>((answer, begun.is_some()))
        };
        let silent = || format!("the application does not stop writing at {application}");
        let (answer, has_begun) = timeout(STOP, asked).await.with_context(silent)?.with_context(silent)?;
        ensure!(has_begun, "{}: it is told to stop itself, or is held already", silent());
        Ok(Self { of: application.to_owned(), answer })
    }

    /// Fails where the application has gone on by itself.
    pub(crate) async fn still(&mut self) -> Result<()> {
        loop {
            match timeout(Duration::ZERO, self.answer.chunk()).await {
                Err(_) => return Ok(()),
                // It says each second that it waits.
                Ok(Ok(Some(_))) => {}
                Ok(_) => anyhow::bail!("the application at {} writes again", self.of),
            }
        }
    }
}
