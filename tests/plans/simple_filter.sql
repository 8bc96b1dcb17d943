SELECT S.segment,
       SUM(S.revenue_lc - S.quantity * 1.05) AS margin_after_fee,
       SUM(CASE WHEN quantity BETWEEN 10 AND 20 OR NOT quantity < 45 THEN 1 WHEN (revenue_lc >= -0.5) THEN 2 ELSE 0 END) AS score
FROM sales_line S
WHERE (S.segment IN ('BUILDING', 'FURNITURE') AND product_line <> 'TIN') AND S.period = :period
  AND booked_on >= DATE '2026-01-01' AND customer_uid IS NOT NULL
GROUP BY S.segment
