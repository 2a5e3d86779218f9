-- Parents that accounts were pushed with before there was account_family, which counted from the account's next change only.
-- They count from the facts in force on; what was so before nobody knows. Twin of sqlite/0024_earlier_parents.sql.
INSERT INTO account_family (tenant, source, head, account_id)
SELECT tenant, source, document::json ->> 'parent', id FROM account
WHERE document::json ->> 'parent' IS NOT NULL
ON CONFLICT (tenant, source, head, account_id) DO NOTHING;

-- The parent is put where a push would write it, so that the same push again changes nothing.
UPDATE service_history
SET detail = CASE
    WHEN detail::json -> 'tax_exempt' IS NULL
        THEN substr(detail, 1, length(detail) - 1) || ',"parent":' || (account.document::json -> 'parent')::text || '}'
    ELSE replace(detail, '"tax_exempt":' || (detail::json -> 'tax_exempt')::text,
        '"tax_exempt":' || (detail::json -> 'tax_exempt')::text || ',"parent":' || (account.document::json -> 'parent')::text)
    END
FROM account
WHERE account.id = service_history.account_id
  AND account.document::json ->> 'parent' IS NOT NULL
  AND detail::json ->> 'parent' IS NULL
  AND detail::json ->> 'status' <> 'terminated'
  AND NOT EXISTS (
    SELECT 1 FROM service_history AS newer
    WHERE newer.account_id = service_history.account_id AND newer.service_id = service_history.service_id
      AND (newer.from_at, newer.id) > (service_history.from_at, service_history.id)
  );
