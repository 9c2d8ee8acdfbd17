"""Images and sounds that are made by formulas: data sets without files."""
