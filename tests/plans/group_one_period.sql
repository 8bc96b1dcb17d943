WITH sub AS (SELECT entity, period, product_line, SUM(revenue_lc) AS revenue, COUNT(DISTINCT customer_uid) AS customers
             FROM sales_line WHERE period = :period AND quantity > 1 GROUP BY entity, period, product_line)
SELECT product_line, SUM(gc(x.revenue, r.avg_rate)) AS revenue, SUM(x.customers) AS customers
FROM sub AS x JOIN entity AS e ON x.entity = e.entity JOIN fx r ON r.period = x.period AND e.currency = r.currency
GROUP BY x.product_line
