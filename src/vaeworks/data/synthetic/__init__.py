"""Images and sounds made by formulas: data sets without files."""
