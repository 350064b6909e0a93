"""Speed and memory of Cove, as ratios to a bare interpreter that is measured in the same run."""
