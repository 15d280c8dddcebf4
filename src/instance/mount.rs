//! Whether LiteFS's directory is still mounted.

use std::{io, os::unix::fs::MetadataExt, path::Path, time::Duration};

use tokio::{fs, time};

use super::Instance;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Instance {
    /// Comes back when LiteFS's directory, once it was mounted, no longer is: LiteFS has died, or somebody has unmounted
    /// it. What is open then answers for ever with errors or with old data, so that the process had better end. Without
    /// LiteFS it never comes back.
    pub async fn mount_is_lost(&self) {
        let Some(litefs) = &self.settings.litefs else { return std::future::pending().await };
        let mut was_mounted = false;
        loop {
            match is_mounted(&litefs.dir).await {
                Ok(false) if was_mounted => return,
                Ok(now) => was_mounted |= now,
                // "Transport endpoint is not connected": its LiteFS is gone.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(_) => {}
            }
            time::sleep(LOOK).await;
        }
    }
}

/// It is, where it lies on another device than its parent. On a LiteFS that hangs this hangs with it.
async fn is_mounted(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir).await?.dev() != fs::metadata(parent).await?.dev())
}
