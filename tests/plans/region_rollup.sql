-- The simple form with totals: sums foot, distinct counts are taken at each level.
SELECT segment, product_line, SUM(quantity) AS pieces, COUNT(*) AS lines, COUNT(DISTINCT customer_uid) AS customers
FROM sales_line
WHERE period = :period
GROUP BY ROLLUP (segment, product_line)
