"""Programs that measure: ratios side by side in one run. Nothing here is imported by the product."""
