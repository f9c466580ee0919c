//! Cluster metadata: the image, its records, the decisions of the active controller.
