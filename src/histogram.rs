//! How often how much: two additions for each value, and no lock, which `prometheus-client`'s own has.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The largest value of each bucket but the last, which takes the rest.
    bounds: &'static [u64],
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// How many of what is added make one of what is shown.
    per_unit: f64,
}

impl Histogram {
    /// Of numbers; the bounds rise.
    pub(crate) fn of_numbers(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1.0)
    }

    /// Of times, shown in seconds; the bounds are in microseconds, and rise.
    pub(crate) fn of_times(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1e6)
    }

    fn new(bounds: &'static [u64], per_unit: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, buckets, sum: AtomicU64::new(0), per_unit }))
    }

    /// Nothing was added yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.buckets.iter().all(|bucket| bucket.load(Relaxed) == 0)
    }

    /// One more value.
    pub(crate) fn observe(&self, value: u64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.buckets[bucket].fetch_add(1, Relaxed);
        self.0.sum.fetch_add(value, Relaxed);
    }

    /// One more time.
    pub(crate) fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no integers; these are exact below 2^53")]
impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let Inner { bounds, buckets, sum, per_unit } = &*self.0;
        let values: Vec<u64> = buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        // Of the same moment as the buckets, which a count of its own would not be.
        let count = values.iter().sum();
        // The last bucket, which has no bound, is what is left of the count.
        let bounds = bounds.iter().map(|bound| *bound as f64 / per_unit);
        let buckets: Vec<(f64, u64)> = bounds.zip(values).collect();
        encoder.encode_histogram::<NoLabelSet>(sum.load(Relaxed) as f64 / per_unit, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::prometheus_text::encode, registry::Registry};

    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_takes_it() {
        let times = Histogram::of_times(&[1000, 10_000]);
        for micros in [0, 1000, 1001, 10_000, 10_001, 5_000_000] {
            times.observe_time(Duration::from_micros(micros));
        }
        let mut registry = Registry::default();
        registry.register("took", "Times", times);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let (_, values) = text.split_once("# TYPE took histogram\n").unwrap();
        let expected = r#"took_bucket{le="0.001"} 2
took_bucket{le="0.01"} 4
took_bucket{le="+Inf"} 6
took_sum 5.022002
took_count 6
"#;
        assert_eq!(values, expected);
    }
}
