-- The catalogue of backups is the manifests beside them: it must outlive the history.
DROP TABLE backups;
