WITH t AS (
  SELECT entity, period, segment, product_line,
         SUM(revenue_lc) AS revenue,
         SUM(revenue_lc - cost_lc) AS margin,
         COUNT(*) AS lines,
         COUNT(DISTINCT customer_uid) AS customers
  FROM sales_line
  WHERE period IN (:period, :prior_year)
  GROUP BY entity, period, segment, product_line
)
SELECT t.segment, t.product_line,
       SUM(CASE WHEN t.period = :period THEN gc(t.revenue, f.avg_rate) ELSE 0 END) AS revenue,
       SUM(CASE WHEN t.period = :period THEN gc(t.margin, f.avg_rate) ELSE 0 END) AS margin,
       SUM(CASE WHEN t.period = :period THEN t.lines ELSE 0 END) AS lines,
       SUM(CASE WHEN t.period = :period THEN each_level(t.customers) ELSE 0 END) AS customers,
       SUM(CASE WHEN t.period = :prior_year THEN gc(t.revenue, f.avg_rate) ELSE 0 END) AS revenue_py,
       SUM(CASE WHEN t.period = :prior_year THEN gc(t.margin, f.avg_rate) ELSE 0 END) AS margin_py,
       SUM(CASE WHEN t.period = :prior_year THEN t.lines ELSE 0 END) AS lines_py,
       SUM(CASE WHEN t.period = :prior_year THEN each_level(t.customers) ELSE 0 END) AS customers_py,
       SUM(CASE WHEN t.period = :prior_year THEN gc(t.revenue, k.avg_rate) ELSE 0 END) AS revenue_py_cc,
       SUM(CASE WHEN t.period = :prior_year THEN gc(t.margin, k.avg_rate) ELSE 0 END) AS margin_py_cc
FROM t
JOIN entity e ON e.entity = t.entity
JOIN fx f ON f.currency = e.currency AND f.period = t.period
JOIN fx k ON k.currency = e.currency AND k.period = :period
GROUP BY ROLLUP (t.segment, t.product_line)
