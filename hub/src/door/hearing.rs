//! What topics retain from before a device announced itself there: heard behind its announcement, each second.

use super::expired::is_over;
use super::{Door, each_second, now_us, settled};
use crate::engine::Offered;
use crate::state::Retained;
use citybrain_shared::Lane;
use tokio::sync::watch;

impl Door {
    pub(super) async fn keep_hearing(&self, mut stop: watch::Receiver<bool>) {
        let mut tick = each_second();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            self.hear_retained().await;
        }
    }

    async fn hear_retained(&self) {
        let topics = self.ingress.unheard();
        if topics.is_empty() {
            return;
        }
        let now_us = now_us();
        let kept: Vec<(&String, Retained)> = super::core::look_ahead(&*self.core, |state| {
            let kept = topics.iter().filter_map(|topic| Some((topic, state.retained.get(topic)?)));
            kept.filter(|(_, kept)| !is_over(kept, now_us)).map(|(topic, kept)| (topic, kept.clone())).collect()
        });
        let heard = kept.iter().flat_map(|(topic, kept)| self.ingress.hear(topic, kept));
        let (urgent, routine): (Vec<Offered>, Vec<Offered>) = heard.partition(|one| one.lane() == Lane::Urgent);
        for offered in [urgent, routine].into_iter().filter(|all| !all.is_empty()) {
            if let Err(error) = settled(self.core.offer(offered).await).await {
                tracing::warn!(%error, "What was retained before an announcement could not be heard yet.");
                return;
            }
        }
        self.ingress.have_heard(&topics);
    }
}
